"""Values of `--cfg-options`, beside mmengine's own parser."""

import argparse

import pytest
from mmengine.config import DictAction

from mmcloformer.apis.cli import add_cfg_options
from mmcloformer.apis.options import parse_options, parse_value
from mmcloformer.errors import ConfigError

# Parsed as mmengine parses them.
AS_BEFORE = [
    '', "''", '[]', '()', "['']", '0', '-1', '+3', '1e-3', '-2.5', '1_000', 'nan_', 'None', 'none',
    'True', 'false', 'TRUE', 'a', 'xxs', '/data/coco/', 'C:\\data\\new\\train', '"C:\\data"',
    'a=b', 'http://host/a.pth?x=1&y=2', 's3://bucket/a', 'mmcloformer://a', 'don\'t', 'a(1).jpg',
    '[1,2]', '(1,2)', '1,2', '1,', '[1,]', '(1,)', '[,]', ',', ',a', 'a,,b', 'a,b,c', '[ 1, 2 ]',
    '[(1333, 800), (1333, 640)]', '[(a,b),(c,d)]', '((1,2),[3,[4]])', '[[1]]', '[a,(b,c),d]',
    "['a','b']", '["a","b"]', "'a','b'", '("a",\'b\')', '"[\'a\',\'b\']"', "'[1, 2]'", "'(1,2)'",
    '"[(a,b),(c,d)]"', "'['a','b']'", '"abc"', "'5'", '"None"', "['1','2']", '[don\'t,can\'t]',
    '[True,None,-1.5,x]', '["don\'t","x"]', 'mmdet::a/b.py', '{a}', '\'"abc"\'', '[a=b,c=d]', ':)',
    '*.png', '[0.5,1e-8]', '~/x', '$HOME', 'a;b', '[1', 'a]',
]  # fmt: skip


@pytest.mark.parametrize('text', AS_BEFORE)
def test_parsed_as_by_mmengine(text):
    expected = DictAction._parse_iterable(text)
    found = parse_value(text)
    assert (found, type(found)) == (expected, type(expected))
    assert repr(found) == repr(expected)  # Also the types inside.


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('/data/My Drive/coco', '/data/My Drive/coco'),
        ('C:\\My Documents\\a b', 'C:\\My Documents\\a b'),
        ('traffic light', 'traffic light'),
        ('a  b', 'a  b'),
        ("['traffic light', 'stop sign']", ['traffic light', 'stop sign']),
        ('[traffic light, stop sign]', ['traffic light', 'stop sign']),
        ('("traffic light",)', ('traffic light',)),
        ('traffic light,car', ['traffic light', 'car']),
        ("'a, b'", 'a, b'),
        ('"a,b"', 'a,b'),
        ("'it's, fine'", "it's, fine"),
        ("['a, b', 'c']", ['a, b', 'c']),
        ("['it\\'s, ok','b)']", ["it\\'s, ok", 'b)']),
        ("[[' a '], ('b c', 1)]", [[' a '], ('b c', 1)]),
        ("['(a,b)', 'c']", ['(a,b)', 'c']),
        ("' padded '", ' padded '),
        ('"\'a b\'"', 'a b'),
        ('(1,2),(3,4)', [(1, 2), (3, 4)]),
        ('f(a,b)', 'f(a,b)'),
        ("rock 'n' roll", "rock 'n' roll"),
        ('a b=c d', 'a b=c d'),
    ],
)
def test_strings_arrive_as_typed(text, value):
    assert parse_value(text) == value


def test_the_option_splits_at_the_first_equals_sign():
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    argv = ['--cfg-options', 'a.b=1', 'c = d e', '--cfg-options', 'x.0.y=http://a?b=c', 'a.b=']
    assert parser.parse_args(argv).cfg_options == {
        'a.b': '', 'c': 'd e', 'x.0.y': 'http://a?b=c',
    }  # fmt: skip
    assert parser.parse_args([]).cfg_options is None


def test_an_argument_without_a_value():
    for argument in ('Drive/new', '=5', ''):
        with pytest.raises(ConfigError, match=f"'{argument}' is not of the form key=value.*quotes"):
            parse_options(['root=/data/My', argument, 'b=1'])


@pytest.mark.parametrize('value', ['[1,2', '(1,2]', 'a), b', '[a,(b]', '1,2]'])
def test_brackets_that_are_not_balanced(value):
    with pytest.raises(ConfigError, match='brackets are not balanced'):
        parse_options([f'key={value}'])
    assert parse_value(f"'{value}'") == value
