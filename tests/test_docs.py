"""The files, options and commands that the README and docs/ name exist and work."""

import json
import os
import re
import shlex
import shutil
import statistics
from pathlib import Path

import pytest
import torch

from tests import released
from tests.conftest import ROOT, TOOLS, load_tool

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
PAGE = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
LINKING = [*PAGES, *(ROOT / name for name in ('CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md'))]
LINKING += [ROOT / 'mmcloformer/weights/README.md']
# The launch scripts pass their options on to these tools.
PARSERS = {'dist_train.sh': 'train.py', 'dist_test.sh': 'test.py'}
PARSERS |= {'slurm_train.sh': 'train.py', 'slurm_test.sh': 'test.py'}


def commands(page: Path, inline: bool = False) -> list[list[str]]:
    """Split the commands in a page's ```bash blocks, or those in its text, into words."""
    text = page.read_text()
    if inline:
        lines = [line.replace('\n', ' ') for line in re.findall(r'`(tools/[^` ]+\s[^`]+)`', text)]
    else:
        blocks = re.findall(r'^```bash\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks for line in block.replace('\\\n', ' ').splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', LINKING, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)]+)\)', page.read_text()):
        if '://' in link:
            continue
        target, _, anchor = link.partition('#')
        file = page.parent / target if target else page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


@PAGE
def test_files_named_in_the_text_exist(page):
    folders = 'benchmarks|configs|docker|docs|mmcloformer|notebooks|requirements|tests|tools'
    named = re.findall(rf'`((?:{folders})/[\w/.-]+\.\w+)`', page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@PAGE
def test_commands_name_files_that_exist(page):
    for words in commands(page) + commands(page, inline=True):
        named = [word for word in words if re.match(r'(tools|configs)/[^*{]*$', word)]
        assert [word for word in named if not (ROOT / word).is_file()] == []
        if words[0] == 'make':
            assert f'\n{words[1]}:' in (ROOT / 'Makefile').read_text()


def test_ci_names_tests_that_exist():
    named = re.findall(r'tests/test_[\w/]+(?:\.py)?', (ROOT / '.ci/run').read_text())
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


@PAGE
def test_options_are_those_of_the_tools(page):
    launch = (ROOT / 'mmcloformer/apis/cli.py').read_text()
    for words in commands(page) + commands(page, inline=True):
        tools = [Path(word).name for word in words if word.startswith('tools/')]
        if tools:
            parser = TOOLS[PARSERS.get(tools[0], tools[0])].read_text()
            if 'base_parser(' in parser:
                parser += launch
            known = re.findall(r"'(--[\w-]+)'", parser)
            known += ['--cfg-options'] * ('add_cfg_options(' in parser)
            options = {re.split('[=;]', word)[0] for word in words if word.startswith('--')}
            assert options <= {*known}, words


# One or two small images, so that twelve epochs take seconds.
SHORT = {
    'train.py': [
        'train_dataloader.batch_size=1',
        'train_dataloader.dataset.indices=1',
        'train_dataloader.dataset.pipeline.2.scale=(320,320)',
        'val_dataloader.dataset.indices=2',
        'train_cfg.val_interval=12',
    ],
    'test.py': ['test_dataloader.dataset.indices=2'],
}
# Not run here: tools that start several processes (tested elsewhere), measure for half an hour, or
# need a GPU for hours.
ELSEWHERE = {'benchmark.py', 'compare_pretraining.py', 'publish_weights.py', *PARSERS}
# They need whole public sets.
PUBLIC_SETS = [ROOT / 'docs/tiny-imagenet.md', ROOT / 'docs/small-sets.md']


@pytest.mark.slow
def test_commands_run_one_after_another(real_data, shapes, tool_main, tmp_path, monkeypatch):
    """Run the pages in an order in which each finds the files that it needs."""
    monkeypatch.chdir(tmp_path)
    for name in ('configs', 'tools'):
        Path(name).symlink_to(ROOT / name)
    Path('data').mkdir()
    for name in ('coco', 'ade', 'imagenet'):
        Path('data', name).symlink_to(real_data / name)
    Path('data/shapes').symlink_to(shapes)
    Path('photos').mkdir()
    shutil.copy(next((real_data / 'coco/val2017').iterdir()), 'photos/one.jpg')
    torch.save(dict(model=released.state_dict('xs')), 'cloformer_xs.pth')

    ran = []
    first = [ROOT / name for name in ('README.md', 'docs/start.md', 'docs/finetune.md')]
    for page in [*first, *(page for page in PAGES if page not in [*first, *PUBLIC_SETS])]:
        for words in commands(page):
            tool = Path(words[0]).name
            if not words[0].startswith('tools/') or tool in ELSEWHERE or words in ran:
                continue
            ran.append(words)
            assert os.access(words[0], os.X_OK)
            print(page.name, shlex.join(words))
            short = [] if '--cfg-options' in words else ['--cfg-options']
            tool_main(tool, *words[1:], *(short + SHORT[tool] if tool in SHORT else []))
    assert ran


def test_the_readme_repeats_the_results():
    """The figures of ours are those of the files in benchmarks/."""
    text = (ROOT / 'README.md').read_text()

    def result(name):
        return json.loads((ROOT / f'benchmarks/{name}.json').read_text())

    def macs(name):
        parts = [result('complexity')[name.format(arch)]['parts'] for arch in ('xxs', 'xs', 's')]
        return [part['whole']['macs'] / 1e9 for part in parts]

    def last(name, weights):
        return statistics.mean(list(run.values())[-1] for run in result(name)['runs'][weights])

    def at_end(name, metric):
        return list(result(name)[metric].values())[-1]

    cpu = {(r['model'], r['size'], r['mode']): r for r in result('cpu')['rows']}
    ours, literal, pvt = (
        cpu[model, '800x1280', 'inference'] for model in ('deploy form', 'literal', 'PVTv2-B1')
    )
    for expected in (
        ' / '.join(f'{each:.2f}' for each in macs('cloformer_{}_imagenet')),
        ' / '.join(f'{each:.1f}' for each in macs('semantic-fpn_cloformer_{}_ade20k')),
        *(
            f'{result("tiny-imagenet-test")[f"accuracy/{metric}"]:.1f} %'
            for metric in ('top1', 'top5')
        ),
        'box AP {:.3f}; from random weights {:.3f}, ResNet-18 {:.3f}'.format(
            *(last('bccd', weights) for weights in ('tiny-imagenet', 'random')),
            statistics.mean(at_end(f'bccd-r18{seed}', 'coco/bbox_mAP') for seed in ('', '-1')),
        ),
        'mIoU {:.1f} %; from random weights {:.1f} %, ResNet-18 {:.1f} %'.format(
            *(at_end(f'camvid-2k{run}', 'mIoU') for run in ('', '-random', '-r18'))
        ),
        '{:.1%}'.format(at_end('deeppcb-4e-pairs', 'pascal_voc/AP33')).replace('%', ' %'),
        'mask AP {:.3f}; from random weights {:.3f}, ResNet-18 {:.3f}'.format(
            *(at_end(f'dsb2018{run}', 'coco/segm_mAP') for run in ('', '-random', '-r18'))
        ),
        'top-1 {:.1f} %; 5 epochs from the weights above: {:.1f} %'.format(
            *(at_end(name, 'accuracy/top1') for name in ('imagenette-20e', 'imagenette'))
        ),
        f'XS {ours["median_ms"]:.0f} ms, PVTv2-B1 {pvt["median_ms"]:.0f} ms',
        f'{literal["median_ms"] / ours["median_ms"]:.1f} times as fast',
        f'in {100 * ours["peak_mb"] / literal["peak_mb"]:.0f} % of its memory',
    ):
        assert expected in text


DSB2018 = ('bbox_mAP', 'segm_mAP', 'segm_mAP_50')


@pytest.mark.parametrize(
    ('name', 'metrics', 'shown'),
    [
        ('imagenette', ('accuracy/top1',), '{:.1f}'.format),
        ('imagenette-20e', ('accuracy/top1',), '{:.1f}'.format),
        ('camvid-2k', ('mIoU',), '{:.1f}'.format),
        ('camvid-2k-random', ('mIoU',), '{:.1f}'.format),
        ('camvid-2k-r18', ('mIoU',), '{:.1f}'.format),
        *(
            each
            for run in ('deeppcb', 'deeppcb-pairs', 'deeppcb-4e', 'deeppcb-4e-pairs', 'deeppcb-r18')
            for each in (
                (run, ('pascal_voc/AP33',), lambda ap: f'{100 * ap:.1f}'),
                (run, ('coco/bbox_mAP_50', 'coco/bbox_mAP'), '{:.3f}'.format),
            )
        ),
        *(
            (f'dsb2018{run}', [f'coco/{each}' for each in DSB2018], '{:.3f}'.format)
            for run in ('', '-random', '-r18')
        ),
        ('bccd-r18', ('coco/bbox_mAP',), '{:.3f}'.format),
        ('bccd-r18-1', ('coco/bbox_mAP',), '{:.3f}'.format),
    ],
)
def test_the_page_of_small_sets_repeats_the_results(name, metrics, shown):
    curves = json.loads((ROOT / f'benchmarks/{name}.json').read_text())
    rows = [' | '.join(map(shown, curves[metric].values())) for metric in metrics]
    page = (ROOT / 'docs/small-sets.md').read_text()
    assert [row for row in rows if f' | {row} |\n' not in page] == []


@pytest.mark.parametrize('name', ['bccd', 'bccd-xs', 'camvid'])
def test_the_page_of_small_sets_repeats_the_comparisons(name):
    found = json.loads((ROOT / f'benchmarks/{name}.json').read_text())
    table = load_tool('compare_pretraining.py')['table'](found['metric'], found['runs'])
    assert table in (ROOT / 'docs/small-sets.md').read_text()
