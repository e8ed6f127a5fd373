"""Folders are checked before anything is computed for them, and nothing is made by checking."""

import os
from pathlib import Path

import pytest

from genmap_jax import places
from genmap_jax.data.folders import root_folder


@pytest.fixture
def here(tmp_path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    return tmp_path


@pytest.mark.parametrize("good", ["folder", "folder/new/newer", "link", "link/new", "new"])
def test_a_folder_there_or_still_to_be_made_is_fine(here, good):
    before = sorted(here.rglob("*"))
    assert places.writable(here / good, "--workdir") == here / good
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("file", "is a file"),
        ("file/below", "is a file"),
        ("dangling", "a link to"),
        ("dangling/below", "a link to"),
    ],
)
def test_no_folder_can_be_there(here, bad, says):
    with pytest.raises(ValueError, match=says) as error:
        places.local(here / bad, "--workdir")
    assert str(error.value).startswith("--workdir ")


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket", "file:///tmp/x"])
def test_a_url_does_not_become_a_folder_of_that_name(url):
    with pytest.raises(ValueError, match="mount the bucket"):
        places.local(Path(url), "--data-dir")
    with pytest.raises(ValueError, match="--data-dir"):
        root_folder(url)


def test_a_place_that_cannot_be_written_is_named(here, monkeypatch):
    """As a file system that is mounted for reading answers, to any user."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != here / "folder" or not mode & os.W_OK)
    assert places.local(here / "folder" / "new", "--workdir") == here / "folder" / "new"
    with pytest.raises(ValueError, match=r"--workdir .*folder cannot be written to"):
        places.writable(here / "folder" / "new", "--workdir")


def test_the_data_folder_of_the_environment_is_named(here, monkeypatch):
    monkeypatch.setenv("GENMAP_DATA", str(here / "file"))
    with pytest.raises(ValueError, match="GENMAP_DATA .*is a file"):
        root_folder(None)
