from mmcloformer.checks.problem import Problem, render


def test_equal_findings_are_one_line_with_a_count():
    one = Problem('train_dataloader.dataset', 'is cut', 'copy it again', file='a.png')
    other = one._replace(found='is empty')
    (line, last) = render([one, other, one._replace(file='b.png')])
    assert '2 files' in line
    assert 'a.png, b.png' in line
    assert one.field in line
    assert last.startswith('a.png (train_dataloader.dataset): is empty')


def test_a_finding_without_a_file_begins_with_its_field():
    assert render([Problem('model.head', 'has 3 classes', 'set 4')]) == [
        'model.head: has 3 classes; set 4'
    ]
