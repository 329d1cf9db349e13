"""Facts of one file: whole or broken, hashed in one pass, git-annex keys instead of hashes."""

import gzip
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boldmill.index.content import _inflate, annex_key, examine


@settings(max_examples=40, deadline=None)
@given(
    members=st.lists(st.binary(max_size=4000), min_size=1, max_size=4),
    block=st.integers(1, 700),
    padding=st.integers(0, 20),
)
def test_inflate_agrees_with_gzip_for_any_members_and_blocks(members, block, padding):
    packed = b"".join(gzip.compress(member, mtime=0) for member in members) + b"\0" * padding
    blocks = (packed[i : i + block] for i in range(0, len(packed), block))
    assert b"".join(_inflate(blocks)) == b"".join(members) == gzip.decompress(packed)


@settings(max_examples=40, deadline=None)
@given(data=st.binary(min_size=1, max_size=3000), cut=st.data())
def test_every_cut_of_a_gzip_file_is_seen(data, cut):
    packed = gzip.compress(data, mtime=0)
    keep = cut.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(Exception, match="truncated"):
        list(_inflate(iter([packed[:keep]])))


def test_a_block_of_zeros_is_inflated_piece_by_piece():
    packed = gzip.compress(bytes(40_000_000), mtime=0)
    pieces = [len(piece) for piece in _inflate(iter([packed]))]
    assert sum(pieces) == 40_000_000
    assert max(pieces) <= 1 << 23


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("ext", [".nii", ".nii.gz"])
def test_hash_shape_and_header(tree, verify, ext):
    path = tree.bold("01", ext=ext, tr=2500.0, unit="msec")
    facts = examine(path, verify)
    assert facts.fault == ""
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (facts.shape, facts.header_tr, facts.size) == ((6, 5, 4, 24), 2.5, path.stat().st_size)


def test_without_verification_a_truncated_gzip_passes_and_with_it_does_not(tree):
    path = tree.bold("01", shape=(16, 16, 16, 24))
    path.write_bytes(path.read_bytes()[:-4000])
    assert examine(path, verify=False).fault == ""
    assert examine(path, verify=True).fault == "the gzip stream ends early: the file is truncated"


def test_uncompressed_truncation_is_always_seen(tree):
    path = tree.bold("01", ext=".nii")
    path.write_bytes(path.read_bytes()[:-10])
    for verify in (True, False):
        assert examine(path, verify).fault.startswith("10 bytes fewer than its header promises")


def annexed(tree, backend, wrong=False):
    """Move a run into an annex as `git annex add` does, and return the link."""
    path = tree.bold("01")
    data = path.read_bytes()
    algorithm = hashlib.sha256 if backend.startswith("SHA256") else hashlib.md5
    digest = algorithm(b"other" if wrong else data).hexdigest()
    key = f"{backend}-s{len(data)}--{digest}.nii.gz"
    store = tree.root / ".git/annex/objects/ab/cd" / key / key
    store.parent.mkdir(parents=True)
    store.write_bytes(data)
    path.unlink()
    path.symlink_to(f"../../.git/annex/objects/ab/cd/{key}/{key}")
    return path, key, data


def test_annex_key_stands_for_the_hash_without_reading(tree):
    path, key, data = annexed(tree, "SHA256E")
    assert annex_key(path) == key
    facts = examine(path, verify=False)
    assert (facts.sha256, facts.key, facts.verified) == (hashlib.sha256(data).hexdigest(), key, False)


def test_md5_key_is_carried_and_no_sha256_is_invented(tree):
    path, key, data = annexed(tree, "MD5E")
    assert examine(path, verify=False).sha256 == ""
    verified = examine(path, verify=True)
    assert (verified.sha256, verified.key) == (hashlib.sha256(data).hexdigest(), key)


def test_content_that_does_not_match_its_key_is_refused(tree):
    path, _, _ = annexed(tree, "SHA256E", wrong=True)
    assert examine(path, verify=True).fault == "its bytes do not match its git-annex key"


def test_size_that_does_not_match_its_key_is_refused_without_reading(tree):
    path, _, data = annexed(tree, "MD5E")
    store = path.resolve()
    store.write_bytes(data + b"\0")
    assert examine(path, verify=False).fault.startswith(f"{len(data) + 1} bytes, but its git-annex key says")


def test_annexed_run_is_ingested_with_its_key_and_absent_content_says_what_to_get(tree):
    tree.t1w("01")
    path, key, _ = annexed(tree, "MD5E")
    assert tree.rows(overrides={"index": {"verify_gzip": False}})["sub-01_task-rest"].status == "ok"
    entry = tree.ticket("sub-01_task-rest")["bold"][0]
    assert (entry["sha256"], entry["annex_key"]) == (None, key)
    path.resolve().unlink()
    row = tree.rows()["sub-01_task-rest"]
    assert row.reason == "its content is not here (git-annex)"
    assert row.fix == "datalad get sub-01_task-rest_bold.nii.gz"


def test_verification_asked_for_later_reads_again(tree):
    tree.good("01")
    path = tree.root / "sub-01/func/sub-01_task-rest_bold.nii.gz"
    lax = {"overrides": {"index": {"verify_gzip": False}}}
    path.write_bytes(tree.bold("01", shape=(16, 16, 16, 24)).read_bytes()[:-4000])
    assert tree.rows(**lax)["sub-01_task-rest"].status == "ok"
    assert tree.rows()["sub-01_task-rest"].status == "quarantined"


def test_image_without_orientation_is_flagged(tree):
    import nibabel as nib
    import numpy as np

    image = nib.Nifti1Image(np.zeros((4, 4, 4, 24), np.int16), None)
    tree.t1w("01")
    tree.bold("01")
    tree.write("sub-01/func/sub-01_task-rest_bold.nii.gz", image.to_bytes())
    assert "no orientation in the header" in tree.rows()["sub-01_task-rest"].flags


def test_nifti2_and_big_endian_headers(tree, trees):
    import nibabel as nib
    import numpy as np

    data = np.zeros((4, 4, 4, 24), np.int16)
    two = nib.Nifti2Image(data, np.eye(4)).to_bytes()
    big = nib.Nifti1Image(data, np.eye(4), nib.Nifti1Header(endianness=">")).to_bytes()
    assert big[:4] == b"\0\0\1\x5c"
    for name, content in (("a.nii.gz", two), ("b.nii", big)):
        assert examine(tree.write(name, content), verify=True).shape == (4, 4, 4, 24)


@pytest.mark.parametrize(
    ("name", "text", "shape"),
    [
        ("a.tsv", "x\ty\n1\t2\n3\tn/a\n", (2, 2)),
        ("a.csv", "0.5,1.5,2\n1,2,3\n", (2, 3)),
        ("a.csv", "# made by a tool\n0.5, 1.5\n1,2\n", (2, 2)),
        ("a.1D", "# x,y\n0.5 1.5\n1 2\n", (2, 2)),
        ("a.txt", "  0.5  1.5 \n\n 1 2\n", (2, 2)),
    ],
)
def test_rows_and_columns_of_tables(tmp_path, name, text, shape):
    path = tmp_path / name
    path.write_text(text)
    assert examine(path, verify=True).shape == shape
