import warnings

import numpy as np
import pytest

from minidl.data.image_folder import BadImageError, ImageFolder, read_image

Image = pytest.importorskip("PIL.Image")


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.fixture
def color():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.fixture
def tree(tmp_path, color):
    save(tmp_path / "cat" / "b.png", color)
    save(tmp_path / "cat" / "deep" / "er" / "a.PNG", color)
    save(tmp_path / "Dog" / "x.bmp", color)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "loose.png").write_bytes(b"not in a class folder")
    return tmp_path


def test_the_layout_is_torchvisions(tree, color):
    dataset = ImageFolder(tree)
    assert dataset.classes == ["Dog", "cat"]
    assert dataset.class_to_idx == {"Dog": 0, "cat": 1}
    names = [path.removeprefix(str(tree)).replace("\\", "/") for path, _ in dataset.samples]
    assert names == ["/Dog/x.bmp", "/cat/b.png", "/cat/deep/er/a.PNG"]
    assert dataset.targets == [0, 1, 1] and dataset.imgs == dataset.samples and len(dataset) == 3
    image, label = dataset[2]
    assert np.array_equal(image, color) and image.dtype == np.uint8 and label == 1


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp", "JPEG", "Png"])
def test_every_extension_is_found_and_read(tmp_path, extension):
    save(tmp_path / "a" / f"x.{extension}", np.full((4, 6), 200), mode="L" if extension == "pgm" else "RGB")
    image, _ = ImageFolder(tmp_path)[0]
    assert image.shape == (4, 6, 3)
    assert abs(image.astype(int) - 200).max() <= 2  # an even grey comes through JPEG and WebP within rounding


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, color, orientation):
    # What the tag means, from the EXIF 2.3 specification: where row 0 and column 0 of the stored pixels belong.
    stored = {
        1: color,
        2: color[:, ::-1],
        3: color[::-1, ::-1],
        4: color[::-1],
        5: color.transpose(1, 0, 2),
        6: color.transpose(1, 0, 2)[::-1],
        7: color[::-1, ::-1].transpose(1, 0, 2),
        8: color.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("x.png", "x.tif"):
        assert np.array_equal(read_image(save(tmp_path / name, stored, exif=exif)), color)


def test_grey_is_spread_over_three_channels(tmp_path):
    grey = np.arange(35).reshape(5, 7)
    assert np.array_equal(read_image(save(tmp_path / "x.png", grey)), np.repeat(grey[..., None], 3, axis=2))


def test_sixteen_bit_grey_is_scaled_to_eight(tmp_path):
    wide = np.array([[0, 128, 129, 257, 256 * 257 // 2, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 128, 255]  # v / 257, rounded
    for name in ("x.png", "x.tif"):
        Image.fromarray(wide).save(tmp_path / name)
        assert read_image(tmp_path / name)[0, :, 1].tolist() == expected
    (tmp_path / "x.pgm").write_bytes(b"P5 6 1 65535\n" + wide.astype(">u2").tobytes())
    assert read_image(tmp_path / "x.pgm")[0, :, 2].tolist() == expected


def test_palette_and_cmyk_become_rgb(tmp_path):
    flat = np.full((4, 4, 3), [255, 0, 0])
    assert np.array_equal(read_image(save(tmp_path / "x.png", flat, mode="P")), flat)
    cmyk = read_image(save(tmp_path / "x.tif", flat, mode="CMYK"))
    assert np.array_equal(cmyk, flat)


def test_transparent_pixels_are_laid_over_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]])
    expected = [[10, 20, 30], [255, 255, 255], [204, 204, 204]]  # 255 * (1 - 51 / 255) = 204
    assert read_image(save(tmp_path / "rgba.png", rgba))[0].tolist() == expected
    assert read_image(save(tmp_path / "la.png", rgba[..., 2:]))[0].tolist() == [[30] * 3, [255] * 3, [204] * 3]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=1)
    assert read_image(tmp_path / "p.png")[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_broken_exif_does_not_spoil_a_good_image(tmp_path, color):
    save(tmp_path / "x.jpg", color, exif=b"Exif\0\0no TIFF header here")
    assert read_image(tmp_path / "x.jpg").shape == color.shape


def test_a_truncated_file_is_named_with_size_and_reason(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    path = save(tmp_path / "a" / "half.jpg", pixels)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(
        BadImageError, match=r"half\.jpg \(1500 bytes\) is not a readable image: OSError: .*truncated"
    ) as caught:
        ImageFolder(tmp_path)[0]
    assert caught.value.path == str(path) and caught.value.size == 1500 and "truncated" in caught.value.reason


def test_something_else_under_an_image_name_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"<html>404</html>")
    with pytest.raises(BadImageError, match=r"x\.png \(16 bytes\) is not a readable image: UnidentifiedImageError"):
        read_image(tmp_path / "x.png")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.new("F", (3, 3)).save(tmp_path / "x.tif")
    with pytest.raises(BadImageError, match="32-bit floating point pixels have no fixed range"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("limit", [20, 10])
def test_a_decompression_bomb_is_refused(tmp_path, color, monkeypatch, limit):
    # 35 pixels: Pillow only warns up to twice its limit, and raises by itself beyond.
    path = save(tmp_path / "x.png", color)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(BadImageError, match=r"35|limit"):
            read_image(path)


def test_a_missing_file_is_not_called_a_bad_image(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read_image(tmp_path / "gone.png")


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ImageFolder: root must be a folder that exists, got .*nowhere"):
        ImageFolder(tmp_path / "nowhere")


def test_a_root_without_class_folders_is_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"Couldn't find any class folder in .*test_a_root"):
        ImageFolder(tmp_path)


def test_class_folders_without_images_are_named(tree):
    for name in ("emu", "fox"):
        (tree / name).mkdir()
    (tree / "fox" / "x.gif").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"Found no valid file for the classes emu, fox in .*\.jpg, \.jpeg, "):
        ImageFolder(tree)


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_is_refused(tree, index):
    with pytest.raises(IndexError, match=rf"ImageFolder: index must be in \[0, 3\), got {index}"):
        ImageFolder(tree)[index]
