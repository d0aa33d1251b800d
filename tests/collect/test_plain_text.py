import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.collect.plain_text import one_line, plain


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<a href="//x/User:Ana" title="User:Ana">Ana</a>', "Ana"),
        ("<ul><li>one: Ana</li>\n<li>two: <b>Bo</b></li></ul>", "one: Ana two: Bo"),
        ("A &amp; B &lt;c&gt; &#1064;", "A & B <c> Ш"),
        ('Unknown author<span style="display: none;">Unknown author</span>', "Unknown author"),
        ('<span style="text-decoration:none">shown</span>', "shown"),
        ('<div style="display:none">a<p>b<br>c</p><img src="x">d</div>e', "e"),
        ("<script>alert('x')</script>Ana<style>b{}</style>", "Ana"),
        ("<!-- hidden -->Ana<![CDATA[x]]>", "Ana [CDATA[x]]>"),
        ("<img src=x onerror=alert(1)>Ana", "Ana"),
        ("a<br/>b<br>c", "a b c"),
        ("Ana\u202egnp.exe\x1b[31m\u200b", "Ana gnp.exe [31m"),
        ("&#27;[2J&#8238;x", "[2J x"),
        ("<", "<"),
        ("a < b", "a < b"),
        (42, "42"),
        (None, ""),
        (True, ""),
        (["x"], ""),
    ],
)
def test_what_is_left_of_html(html: object, text: str) -> None:
    assert plain(html) == text


def test_long_text_is_cut_with_a_sign() -> None:
    assert len(one_line("a" * 9999)) == 500
    assert one_line("a" * 9999).endswith("a…")


@given(text=st.text(alphabet=st.sampled_from("<>!-[]/&;#a \"'=\x00\u202e\n") | st.characters(), max_size=200))
def test_anything_becomes_one_line(text: str) -> None:
    for result in (plain(text), one_line(text)):
        assert len(result) <= 500
        assert result == result.strip()
        assert not any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 or c in "\u202e\u2028\x7f" for c in result)
