import pytest

from tasks import results
from tasks.errors import InvalidInput, StorageError
from tasks.object_store import ObjectStore, ObjectUri


def test_uris() -> None:
    root = ObjectUri.parse("s3://bucket")
    assert str(root / "a" / "b.txt") == "s3://bucket/a/b.txt"
    assert (root / "a" / "b.txt").name == "b.txt"
    for wrong in ("bucket/key", "file:///tmp", "s3://"):
        with pytest.raises(InvalidInput, match="write s3://"):
            ObjectUri.parse(wrong)


def test_conditional_writes_have_one_winner(s3_root: str) -> None:
    store, uri = ObjectStore(), ObjectUri.parse(s3_root) / "current.json"
    assert store.put_json(uri, {"version": 1}, if_absent=True)
    assert not store.put_json(uri, {"version": 2}, if_absent=True)
    body, etag = store.get_versioned(uri)
    assert b'"version": 1' in body
    assert store.put_json(uri, {"version": 2}, if_match=etag)
    assert not store.put_json(uri, {"version": 3}, if_match=etag)
    assert store.get_json(uri) == {"version": 2}


def test_a_missing_object(s3_root: str) -> None:
    store, uri = ObjectStore(), ObjectUri.parse(s3_root) / "nothing"
    assert store.head(uri) is None
    with pytest.raises(FileNotFoundError, match=r"s3://.*/nothing"):
        store.get_bytes(uri)


def test_a_result_exists_only_with_its_manifest_and_is_checked(s3_root: str) -> None:
    store, prefix = ObjectStore(), ObjectUri.parse(s3_root) / "graph"
    assert results.find(store, prefix) is None
    results.publish(store, prefix, {"a.txt": b"one", "b.txt": b"two"}, {"reads": 2})
    assert results.verify(store, prefix).details == {"reads": 2}
    store.put_bytes(prefix / "b.txt", b"2wo")
    with pytest.raises(StorageError, match=r"b\.txt does not have the SHA-256"):
        results.verify(store, prefix)
