import codecs
import shutil
import subprocess

import pytest

from mmcloformer.checks.text import decode_text, mark_problem

TEXT = 'ähre/1.jpg 0\nring/2.jpg 1\n'
ENCODINGS = ['utf-8-sig', 'utf-16', 'utf-16-be', 'utf-32', 'utf-32-be']


def encoded(encoding):
    mark = dict(zip(('utf-16-be', 'utf-32-be'), (codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)))
    return mark.get(encoding, b'') + TEXT.encode(encoding)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_the_command_that_is_advised_removes_the_mark(encoding, tmp_path):
    file = tmp_path / 'my list.txt'
    file.write_bytes(encoded(encoding))
    problem = mark_problem(encoded(encoding)[:4], str(file))
    assert decode_text(encoded(encoding), str(file)) == TEXT
    command = problem.partition('UTF-8')[2].partition(': ')[2]
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f'no {command.split()[0]}')
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    converted = tmp_path / 'NEW' if 'NEW' in command else file
    assert converted.read_bytes() == TEXT.encode()


def test_utf_8_has_no_problem():
    assert mark_problem(TEXT.encode()[:4], 'list.txt') is None
    assert mark_problem(b'', 'list.txt') is None
    assert decode_text(TEXT.encode(), 'list.txt') == TEXT


def test_another_encoding_without_a_mark():
    assert mark_problem(TEXT.encode('cp1252')[:4], 'list.txt') is None
    with pytest.raises(ValueError, match=r'not UTF-8 .* iconv -f WINDOWS-1252 -t UTF-8 list\.txt'):
        decode_text(TEXT.encode('cp1252'), 'list.txt')
