"""Image columns: arrays and files, their statistics, and images that cannot be read."""

import json
import struct
import tracemalloc
import zlib

import numpy as np
import polars as pl
import pytest

import mtl_cli.data.images
from mtl_cli.data import FeatureOptions, Features
from mtl_cli.data.images import Decoded
from mtl_cli.data.table import Part, Table
from mtl_cli.errors import ConfigError, DataError
from mtl_cli.schema import ImageOptions

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)


def table_of(**columns):
    frame = pl.DataFrame(columns)
    return Table(frame, (Part("photos.csv", 0, frame.height, lines=True),))


def fit(table, train=(0, 1, 2), **options):
    return Features.fit(table, FeatureOptions(**options), np.array(train), {})


@pytest.fixture
def raw_files(tmp_path, monkeypatch):
    """Images as raw bytes, read by a stand-in for Pillow: six, of which the fourth is cut to half its bytes."""
    monkeypatch.chdir(tmp_path)
    for i, pixels in enumerate(PIXELS):
        (tmp_path / f"{i}.raw").write_bytes(pixels.tobytes()[: 30 if i == 3 else None])

    def decode(path, options, channels, version=2):
        content = path.read_bytes()
        if len(content) != 60:
            raise OSError("image file is truncated")
        return Decoded(np.frombuffer(content, np.uint8).reshape(5, 4, 3), coloured=True)

    monkeypatch.setattr(mtl_cli.data.images, "decode", decode)
    return table_of(photo=[f"{i}.raw" for i in range(6)], x=["1", "2", "3", "4", "5", "6"])


def test_arrays_stay_as_small_as_they_are_and_are_measured_on_training_rows():
    table = table_of(photo=PIXELS, grey=PIXELS[..., 0], real=PIXELS[..., 0].astype(np.float64) / 255)
    features = fit(table)
    blocks = features.transform(table)[0].blocks
    assert np.array_equal(blocks["photo"].numpy(), PIXELS)
    assert blocks["photo"].dtype == blocks["grey"].dtype
    assert blocks["grey"].shape == (6, 5, 4, 1)
    assert str(blocks["real"].dtype) == "torch.float32"
    photo, grey, _ = features.spec.blocks
    assert (photo.shape, grey.shape, photo.type) == ((5, 4, 3), (5, 4, 1), "image")
    np.testing.assert_allclose(photo.mean, PIXELS[:3].mean((0, 1, 2)))
    np.testing.assert_allclose(photo.std, PIXELS[:3].std((0, 1, 2)))
    assert features.input_dim == 60 + 20 + 20
    assert features.describe_width().startswith("photo: image 5 x 4 x 3; grey: image 5 x 4 x 1")


def test_arrays_are_measured_some_at_a_time(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (500, 16, 16, 3), dtype=np.uint8)
    table, train = table_of(photo=pixels), range(1, 500)
    monkeypatch.setattr(mtl_cli.data.images, "_CELLS_AT_ONCE", 16 * 16 * 3 * 10)
    tracemalloc.start()
    (photo,) = fit(table, train).spec.blocks
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < pixels.nbytes
    assert photo.mean == tuple(pixels[1:].mean((0, 1, 2)))
    np.testing.assert_allclose(photo.std, pixels[1:].std((0, 1, 2)), rtol=1e-12)
    monkeypatch.setattr(mtl_cli.data.images, "_CELLS_AT_ONCE", 1)  # no image is smaller
    np.testing.assert_allclose(fit(table, train).spec.blocks[0].std, photo.std, rtol=1e-12)


def test_image_without_contrast_has_deviation_one_and_is_told():
    features = fit(table_of(photo=np.zeros((3, 2, 2), np.uint8)))
    assert features.spec.blocks[0].std == (1.0,)
    assert features.notes == (
        "photos.csv, column 'photo': all pixels of 3 training images are the same: the column says nothing.",
    )
    assert fit(table_of(photo=PIXELS)).notes == ()


@pytest.mark.parametrize("order", [(0, 0, 0, 0, 1, 1, 1, 1), (0, 1, 0, 1, 0, 1, 0, 1)])  # one below the other; in turns
def test_files_are_measured_all_over_the_training_rows(raw_files, tmp_path, monkeypatch, order):
    for i in range(2):
        (tmp_path / f"{i}.raw").write_bytes(bytes([200 * i] * 60))
    monkeypatch.setattr(mtl_cli.data.images, "_MEASURED", 4)
    table = table_of(photo=[f"{i}.raw" for i in order])
    (photo,) = fit(table, train=range(8), inputs=[{"name": "photo", "type": "image"}]).spec.blocks
    assert (photo.mean, photo.std) == ((100.0,) * 3, (100.0,) * 3)


def test_features_with_images_survive_json():
    table = table_of(photo=PIXELS)
    again = Features.from_json(json.loads(json.dumps(fit(table).to_json())))
    assert again.spec == fit(table).spec
    assert np.array_equal(again.transform(table)[0].blocks["photo"].numpy(), PIXELS)


def test_image_array_declared_numeric_is_a_block_of_numbers():
    table = table_of(photo=PIXELS)
    features = fit(table, inputs=[{"name": "photo", "type": "numeric"}], scale="none")
    assert np.array_equal(features.transform(table)[0].numeric.numpy(), PIXELS.reshape(6, -1))


def test_images_of_another_size_or_type_are_refused():
    features = fit(table_of(photo=PIXELS))
    with pytest.raises(DataError, match=r"must hold images of 5 x 4 with 3 channels, got 5 x 4 with 1 channel"):
        features.transform(table_of(photo=PIXELS[..., 0]))
    with pytest.raises(DataError, match=r"column 'photo': must hold images"):
        features.transform(table_of(photo=[1, 2]))
    with pytest.raises(DataError, match=r"pixels that are not finite"):
        fit(table_of(photo=np.full((3, 2, 2), np.nan)))


@pytest.mark.parametrize(
    ("trained", "given", "message"),
    [
        (PIXELS, np.float32(PIXELS / 255), r"got floats up to \S+ instead of whole numbers up to 2\d\d\. Bring them"),
        (PIXELS, PIXELS / 127.5 - 1, r"got floats up to 1 instead of whole numbers up to 2\d\d"),
        (PIXELS / 255, PIXELS, r"got whole numbers up to 2\d\d instead of floats up to \S+"),
        (PIXELS > 99, 255 * np.uint8(PIXELS > 99), r"got whole numbers up to 255 instead of truth values up to 1"),
        (PIXELS, PIXELS.astype(np.float64), None),
        (PIXELS, PIXELS.astype(np.int32), None),
        (PIXELS.astype(np.float32), PIXELS, None),
        (PIXELS, PIXELS // 100, None),  # dark, as bytes
        (PIXELS, np.zeros(PIXELS.shape, np.float32), None),  # black on any scale
        (PIXELS > 99, np.float32(PIXELS > 99), None),
        (np.uint8(PIXELS > 99), PIXELS > 99, None),
    ],
)
def test_pixels_on_another_scale_than_in_training_are_refused(trained, given, message):
    features = Features.from_json(json.loads(json.dumps(fit(table_of(photo=trained)).to_json())))
    elsewhere = fit(table_of(photo=given)).read_as(features)  # of a run that starts from the other
    for own in (features, elsewhere):
        if message is None:
            assert np.array_equal(own.transform(table_of(photo=given))[0].blocks["photo"].numpy(), given)
        else:
            with pytest.raises(DataError, match=rf"photos.csv, column 'photo': .* another scale .*{message}"):
                own.transform(table_of(photo=given))


def test_pixels_of_files_are_whole_numbers(raw_files):
    options = {"inputs": [{"name": "photo", "type": "image"}]}
    with pytest.raises(DataError, match=r"got whole numbers up to 2\d\d instead of floats up to \S+"):
        fit(table_of(photo=PIXELS / 255), **options).transform(raw_files)
    with pytest.raises(DataError, match=r"got floats up to 1 instead of whole numbers up to 2\d\d"):
        fit(raw_files, **options).transform(table_of(photo=PIXELS / 255))


def test_runs_of_before_do_not_know_the_scale_of_their_pixels():
    saved = fit(table_of(photo=PIXELS)).to_json()
    for key in ("pixels", "largest"):
        del saved["blocks"][0][key]
    before = Features.from_json(saved)
    given = table_of(photo=PIXELS / 255)
    before.transform(given)
    assert fit(given).read_as(before).blocks[0].pixels == "floats"  # now it does


def test_damaged_file_is_named_with_its_row_before_training(raw_files):  # DAT-17
    features = fit(raw_files, inputs=[{"name": "photo", "type": "image"}, "x"])
    where = (
        r"photos.csv, column 'photo', row 4 \(line 5\): the image '3.raw' cannot be read \(image file is truncated\)"
    )
    with pytest.raises(DataError, match=where):
        features.transform(raw_files)
    with pytest.raises(DataError, match=r"row 4 .*\n.*row 1 .*there is no image file|row 1 .*there is no image file"):
        features.transform(table_of(photo=["nowhere.raw"], x=["1"]))


def test_damaged_and_missing_files_can_be_left_out(raw_files):  # DAT-17
    features = fit(raw_files, inputs=[{"name": "photo", "type": "image"}], image=ImageOptions(on_bad="skip"))
    unreadable = []
    inputs, notes = features.transform(raw_files, unreadable=unreadable)
    assert unreadable == [3]
    assert notes == [
        "1 row is left out for every task, its image cannot be read: photos.csv, column 'photo', row 4 (line 5)."
    ]
    assert np.array_equal(inputs.blocks["photo"][[0, 1, 2, 4, 5]].numpy(), PIXELS[[0, 1, 2, 4, 5]])
    assert not inputs.blocks["photo"][3].any()
    unreadable = []
    features.transform(table_of(photo=["0.raw", None]), unreadable=unreadable)
    assert unreadable == [1]


def test_files_are_colours_if_some_training_image_is(tmp_path, monkeypatch):
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    monkeypatch.chdir(tmp_path)
    for name, pixels in (("grey", PIXELS[0, ..., 0]), ("colour", PIXELS[1])):
        Image.fromarray(pixels).save(f"{name}.png")
    table = table_of(photo=["grey.png", "colour.png", "colour.png"])
    options = {"inputs": [{"name": "photo", "type": "image"}]}
    features = fit(table, [0, 1], **options)
    inputs, notes = features.transform(table)
    grey = np.repeat(PIXELS[0, ..., :1], 3, 2)
    assert np.array_equal(inputs.blocks["photo"].numpy(), np.stack([grey, PIXELS[1], PIXELS[1]]))
    np.testing.assert_allclose(features.spec.blocks[0].mean, np.stack([grey, PIXELS[1]]).mean((0, 1, 2)))
    assert notes == []
    features = fit(table, [0], **options)
    assert features.spec.blocks[0].shape == (5, 4, 1)
    assert features.transform(table)[1] == [
        "photos.csv, column 'photo': 2 images are stored in colours and read as grey, as no training image looked at "
        "has any."
    ]
    assert fit(table, [0], **options, image=ImageOptions(channels=1)).transform(table)[1] == []
    assert fit(table, [0], **options, image=ImageOptions(channels=3)).spec.blocks[0].shape == (5, 4, 3)


def test_image_files_are_known_by_their_sizes(raw_files, tmp_path):
    options = {"inputs": [{"name": "photo", "type": "image"}, "x"], "image": ImageOptions(on_bad="skip")}
    saved = json.loads(json.dumps(fit(raw_files, **options).to_json()))
    features = Features.from_json(saved)
    assert features.changed_files(raw_files) == {}
    for change in (lambda path: path.write_bytes(bytes(61)), lambda path: path.unlink()):
        change(tmp_path / "5.raw")
        assert list(features.changed_files(raw_files)) == ["photo"]
    (tmp_path / "5.raw").write_bytes(PIXELS[5].tobytes())
    assert features.changed_files(raw_files) == {}
    del saved["blocks"][0]["files"]  # as runs of before
    assert Features.from_json(saved).changed_files(table_of(photo=["0.raw"], x=["1"])) == {}
    assert fit(table_of(photo=PIXELS)).changed_files(table_of(photo=PIXELS[1:])) == {}


def test_root_is_where_relative_paths_start(raw_files, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "0.raw").rename(tmp_path / "deep/0.raw")
    options = {"inputs": [{"name": "photo", "type": "image"}], "image": ImageOptions(root="deep")}
    table = table_of(photo=["0.raw"])
    absent = table_of(photo=["1.raw"])  # it is where paths would start without a root
    with pytest.raises(DataError, match=rf"there is no image file '1.raw', looked for {tmp_path}/deep/1.raw\. Mend it"):
        fit(absent, [0], **options)
    assert np.array_equal(fit(table, [0], **options).transform(table)[0].blocks["photo"].numpy(), PIXELS[:1])


def test_files_without_pillow_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ConfigError, match=r"image files need Pillow.* pip install 'mtl-train\[images\]'"):
        mtl_cli.data.images.decode(tmp_path / "a.png", ImageOptions(), None)


def test_pillow_reads_files_upright_in_the_size_and_channels_asked_for(tmp_path, monkeypatch):
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    decode = mtl_cli.data.images.decode
    assert np.array_equal(decode(tmp_path / "a.png", ImageOptions(), None).pixels, PIXELS[0])
    assert decode(tmp_path / "a.png", ImageOptions(), 1).pixels.shape == (5, 4, 1)
    assert decode(tmp_path / "a.png", ImageOptions(size=[7, 9]), None).pixels.shape == (7, 9, 3)
    rotated = Image.Exif()
    rotated[274] = 6  # to be turned by 90 degrees to be seen
    Image.fromarray(PIXELS[0]).save(tmp_path / "turned.png", exif=rotated)
    assert np.array_equal(decode(tmp_path / "turned.png", ImageOptions(), None).pixels, np.rot90(PIXELS[0], -1))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match=r"truncated|cannot identify"):
        decode(tmp_path / "half.png", ImageOptions(), None)
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "colour.png").write_bytes(_png(bytes([0, 1, 2, 3, 4, 5, 6]), bits=16))
    for name in ("deep.png", "colour.png"):
        with pytest.raises(ValueError, match=r"more than 8 bits"):
            decode(tmp_path / name, ImageOptions(), None)
    assert decode(tmp_path / "colour.png", ImageOptions(), None, 1).pixels.tolist() == [[[1, 3, 5]]]


def _png(line, bits):
    """A file of one pixel in colours."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", 1, 1, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(line)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(10))
def test_photos_are_turned_as_they_were_held(tmp_path, orientation):
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    from PIL.ImageOps import exif_transpose

    exif = Image.Exif()
    exif[0x112] = orientation
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(PIXELS[0]).save(tmp_path / name, exif=exif)
        with Image.open(tmp_path / name) as opened:
            upright = np.asarray(exif_transpose(opened))
        assert np.array_equal(mtl_cli.data.images.decode(tmp_path / name, ImageOptions(), None).pixels, upright)


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [(0x100, 9, struct.pack("<i", -5)), (0x103, 2, b"6\0"), (0x128, 2, b"2\0"), (0x14A, 2, b"1\0"), (0x213, 2, b"1\0")],
)
def test_photo_with_an_odd_tag_is_read(tmp_path, tag, kind, value):
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    held = struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)
    odd = struct.pack("<HHI", tag, kind, 1 if kind == 9 else len(value)) + value.ljust(4, b"\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + b"".join(sorted([held, odd])) + bytes(4)
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png", exif=exif)
    found = mtl_cli.data.images.decode(tmp_path / "a.png", ImageOptions(), None)
    assert np.array_equal(found.pixels, np.rot90(PIXELS[0], -1))


def test_whatever_pillow_raises_for_a_damaged_file_names_it(tmp_path, monkeypatch):
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS[0]).save("a.png")
    Image.fromarray(PIXELS[0]).save("exif.png", exif=b"Exif\0\0II*\0")  # cut off: struct.error
    whole = _png(bytes(4), bits=8)
    (tmp_path / "profile.png").write_bytes(whole[:-12] + bytes(4) + b"iCCP" + bytes(4) + whole[-12:])  # IndexError
    Image.fromarray(PIXELS[0]).save("strips.tif")
    tags = (tmp_path / "strips.tif").read_bytes()  # whose pixels start at a fraction: TypeError
    place = tags.index(struct.pack("<HH", 273, 4))
    (tmp_path / "strips.tif").write_bytes(tags[: place + 2] + struct.pack("<H", 5) + tags[place + 4 :])
    names = ["exif.png", "profile.png", "strips.tif"]
    table = table_of(photo=["a.png", *names])
    options = {"inputs": [{"name": "photo", "type": "image"}], "image": ImageOptions(on_bad="skip")}
    with pytest.raises(DataError) as refused:
        fit(table, [0], **options).transform(table)
    for problem, name in zip(refused.value.problems, names, strict=True):
        assert problem.what.startswith(f"the image '{name}' cannot be read (")
    unreadable = []
    fit(table, [1, 2, 3, 0], **options).transform(table, unreadable=unreadable)
    assert unreadable == [1, 2, 3]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_transparent_pixels_are_white(tmp_path, monkeypatch, mode):
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    monkeypatch.chdir(tmp_path)
    if mode in ("RGBA", "LA"):  # black, with the drawing in the transparency
        image = Image.new(mode, (2, 1))
        image.putpixel((1, 0), (0,) * (len(mode) - 1) + (255,))
        image.save("a.png")
    else:  # one value is transparent
        image = Image.fromarray(np.array([[7, 0]], np.uint8))
        if mode == "P":
            image = image.convert("P")
        image.save("a.png", transparency=7)
    decode = mtl_cli.data.images.decode
    assert decode("a.png", ImageOptions(), 3).pixels.tolist() == [[[255] * 3, [0] * 3]]
    assert decode("a.png", ImageOptions(), 1).pixels.tolist() == [[[255], [0]]]
    assert decode("a.png", ImageOptions(), None).coloured == (mode in ("RGBA", "P"))
    table = table_of(photo=["a.png"])
    saved = fit(table, [0], inputs=[{"name": "photo", "type": "image"}]).to_json()
    assert Features.from_json(saved).transform(table)[0].blocks["photo"].max() == 255
    del saved["blocks"][0]["version"]  # as runs of before
    assert Features.from_json(saved).transform(table)[0].blocks["photo"].max() <= 7


def test_image_of_too_many_pixels_is_one_that_cannot_be_read(tmp_path, monkeypatch):
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    monkeypatch.chdir(tmp_path)
    for name, pixels in (("a.png", PIXELS[0]), ("large.png", np.zeros((50, 4, 3), np.uint8))):
        Image.fromarray(pixels).save(name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90)
    table = table_of(photo=["a.png", "large.png"])
    options = {"inputs": [{"name": "photo", "type": "image"}]}
    with pytest.raises(DataError, match=r"row 2 \(line 3\): the image 'large.png' cannot be read \(.*exceeds limit"):
        fit(table, [0], **options).transform(table)
    unreadable = []
    fit(table, [0, 1], **options, image=ImageOptions(on_bad="skip")).transform(table, unreadable=unreadable)
    assert unreadable == [1]


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp"])
def test_first_of_several_frames_is_read(tmp_path, suffix):
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    frames = [Image.new("L", (4, 5), shade) for shade in (200, 10)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    pixels = mtl_cli.data.images.decode(tmp_path / f"a.{suffix}", ImageOptions(), 1).pixels
    assert (pixels.shape, set(pixels.ravel().tolist())) == ((5, 4, 1), {200})
