from patchwheel.patch.lint import check_patch
from tests.fixtures.patches import ONE, mail, patch


def test_paths_modes_and_hunks_are_read() -> None:
    data = mail(
        b'diff --git "a/t\\tab\\303\\251" "b/t\\tab\\303\\251"\n'
        b'--- "a/t\\tab\\303\\251"\n+++ "b/t\\tab\\303\\251"\n'
        b"@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n"
        b"diff --git a/with space b/with space\nold mode 100644\nnew mode 100755\n"
        b"diff --git a/x y b/x y\n--- a/x y\t\n+++ b/x y\t\n@@ -1,2 +1,2 @@\n\n-1\n+2\n"
        b"diff --git a/old b/new\nsimilarity index 100%\nrename from old\nrename to new\n"
        b"diff --git a/empty b/empty\nnew file mode 100644\nindex 0000000..e69de29\n"
        b"diff --git a/gone b/gone\ndeleted file mode 100644\nindex e69de29..0000000\n"
        b"diff --git a/c1 b/c2\ncopy from c1\ncopy to c2\n"
    )
    check_patch(patch(data))
    found = patch(data).diffs
    assert [(d.old, d.new) for d in found] == [
        ("t\tabé", "t\tabé"),
        ("with space", "with space"),
        ("x y", "x y"),
        ("old", "new"),
        (None, "empty"),
        ("gone", None),
        ("c1", "c2"),
    ]
    assert found[0].hunks[0].rows == (b"-a", b"+b\n")
    assert found[1].new_mode == "100755"
    assert found[2].hunks[0].before == [b"\n", b"1\n"]
    assert found[6].copy


def test_content_need_not_be_utf8() -> None:
    data = mail(ONE.replace(b"TWO", b"\xff\xfe\r"))
    check_patch(patch(data))
    assert patch(data).diffs[0].hunks[0].after[1] == b"\xff\xfe\r\n"
