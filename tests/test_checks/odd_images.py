"""Image files that decoders disagree about, or that need a closer look than their first bytes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

NOISE = np.random.RandomState(0).randint(0, 256, (48, 64, 3), np.uint8)


def encode(image, kind='PNG', **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def photo(kind='PNG', mode='RGB', **options):
    return encode(Image.fromarray(NOISE).convert(mode), kind, **options)


def animation(kind):
    frame = Image.fromarray(NOISE)
    return encode(frame, kind, save_all=True, append_images=[frame.rotate(90)])


def with_text(text, **options):
    info = PngInfo()
    info.add_text('comment', text, **options)
    return photo(pnginfo=info)


def header(width, height, depth=1, colour=0):
    return struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)


def chunks(content):
    """Split a PNG into pairs of a name and the data."""
    position = 8
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], 'big')
        yield content[position + 4 : position + 8], content[position + 8 : position + 8 + length]
        position += 12 + length


def png(*parts, bad=None):
    """Join chunks; the one that is called `bad` gets a wrong checksum."""
    content = b'\x89PNG\r\n\x1a\n'
    for name, data in parts:
        checksum = zlib.crc32(name + data) ^ (name == bad)
        content += struct.pack('>I', len(data)) + name + data + struct.pack('>I', checksum)
    return content


HEADER, *PIXELS, END = chunks(photo())
GREY = [*chunks(photo(mode='L'))]
PALETTE = [*chunks(photo(mode='P'))]
TEXT = (b'tEXt', b'comment\0text')
DAMAGED = bytearray(PIXELS[0][1])
DAMAGED[len(DAMAGED) // 2] ^= 0x55

# Whole pictures.
GOOD = {
    'text of 2 MB': with_text('x' * 2_000_000),
    'compressed text of 2 MB': with_text('x' * 2_000_000, zip=True),
    'checksum of a text': png(HEADER, TEXT, *PIXELS, END, bad=b'tEXt'),
    'checksum of a text at the end': png(HEADER, *PIXELS, TEXT, END, bad=b'tEXt'),
    'density cut short': png(HEADER, (b'pHYs', b'abc'), *PIXELS, END),
    'colour profile': png(HEADER, (b'iCCP', b'name\0\0garbage'), *PIXELS, END),
    'checksum of the end': png(HEADER, *PIXELS, END, bad=b'IEND'),
    'bytes after a PNG': photo() + b'more' * 99,
    'bytes after a JPEG': photo('JPEG') + b'\xff\xd8\xff' * 99,
    'animated PNG': animation('PNG'),
    'animated GIF': animation('GIF'),
    'animated WebP': animation('WEBP'),
    'pages of a TIFF': animation('TIFF'),
    '16-bit TIFF': encode(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257), 'TIFF'),
    'BMP': photo('BMP'),
}
# Pictures whose pixels are lost or unreadable, and what is said of each.
BAD = {
    'checksum of the pixels': (png(HEADER, *PIXELS, END, bad=b'IDAT'), "checksum .* 'IDAT'"),
    'checksum of the header': (png(HEADER, *PIXELS, END, bad=b'IHDR'), "checksum .* 'IHDR'"),
    'checksum of the palette': (png(*PALETTE, bad=b'PLTE'), "checksum .* 'PLTE'"),
    'pixels, with a checksum': (png(HEADER, (b'IDAT', bytes(DAMAGED)), END), 'cannot be read'),
    'no pixels': (png(HEADER, END), 'has no pixels'),
    'no palette': (
        png(*(chunk for chunk in PALETTE if chunk[0] != b'PLTE')),
        'cannot be read .* PNG of mode P',
    ),
    'GIF cut short': (photo('GIF')[:2000], 'cannot be read .* though it is a GIF'),
    'WebP cut short': (photo('WEBP')[:900], 'cannot be read .* though it is a WEBP'),
    'HEIC': (b'\0\0\0\x18ftypheic' + bytes(99), 'cannot be read .* though it is a HEIC'),
    'page of an error': (b'<html>404</html>', 'is not an image'),
    'too large for OpenCV': (
        png((b'IHDR', header(40_000, 40_000)), *PIXELS, END),
        'too many pixels.* OPENCV_IO_MAX_IMAGE_PIXELS',
    ),
}
# Whole, but refused by OpenCV or by Pillow: files and what is said with each reader.
DISPUTED = {
    'no end': (png(*GREY[:-1]), dict(cv2='cannot be read', pillow=None)),
    'cut in the end': (png(*GREY)[:-6], dict(cv2='cannot be read', pillow=None)),
    'unknown critical chunk': (
        png(GREY[0], (b'ABCD', b''), *GREY[1:]),
        dict(cv2='cannot be read', pillow=None),
    ),
    'checksum of a text': (
        png(GREY[0], TEXT, *GREY[1:], bad=b'tEXt'),
        dict(cv2=None, pillow='cannot be read'),
    ),
    'compressed text of 2 MB': (
        png(GREY[0], (b'zTXt', b'a\0\0' + zlib.compress(bytes(2_000_000))), *GREY[1:]),
        dict(cv2=None, pillow='cannot be read .*too large'),
    ),
    'checksum of the pixels': (
        png(*GREY, bad=b'IDAT'),
        dict(cv2="checksum .* 'IDAT'", pillow="checksum .* 'IDAT'"),
    ),
}
