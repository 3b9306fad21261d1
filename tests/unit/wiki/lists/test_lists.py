"""A list comes back as it was written, whoever wrote it, or is refused in one sentence with the line and the cure."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import few_and_many, fuzz, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sp_data.errors import RecipeError
from sp_data.wiki.addresses import Address, read_addresses

HOST = "http://kids.example"
A, B = f"{HOST}/a.png", f"{HOST}/b.png"
fast = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, body: bytes | str, encoding: str = "") -> list[tuple[str, str, str | None]]:
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    return rows(read_addresses(str(path), encoding))


def rows(addresses: list[Address]) -> list[tuple[str, str, str | None]]:
    return [(address.url, address.caption, address.licence) for address in addresses]


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark", "utf-32"])
@pytest.mark.parametrize("name", ["kids.txt", "kids.csv", "kids.tsv"])
def test_unicode_is_read_with_or_without_its_mark(tmp_path, name, encoding):
    text = f"{A}\r\n{HOST}/café.png\r\n"
    if name != "kids.txt":
        text = "url\r\n" + text
    body = ("\ufeff" + text).encode("utf-16-be") if encoding == "utf-16-be-mark" else text.encode(encoding)
    assert [url for url, _, _ in read(tmp_path / name, body)] == [A, f"{HOST}/café.png"]


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "utf-16-le", "UTF-16-BE", "shift_jis", "iso2022_jp", "cp1251"]
)
def test_any_other_encoding_is_read_if_the_recipe_names_it(tmp_path, encoding):
    word = {"shift_jis": "子供", "iso2022_jp": "子供", "cp1251": "дитя"}.get(encoding, "café")
    body = f"url,caption\n{A},{word}\n".encode(encoding)
    assert read(tmp_path / "kids.csv", body, encoding) == [(A, word, None)]


def test_a_byte_that_is_not_unicode_is_named_with_its_line_however_far_it_is(tmp_path):
    lines = [f"{HOST}/{number}.png,a kid\r\n".encode() for number in range(20_000)]
    lines[15_000] = lines[15_000].replace(b"a kid", b"caf\xe9")
    body = b"url,caption\r\n" + b"".join(lines)
    message = r"kids\.csv, line 15,002: has the byte 0xE9, which is not UTF-8; .*source\.encoding=cp1252"
    with pytest.raises(RecipeError, match=message):
        read(tmp_path / "kids.csv", body)
    assert len(read(tmp_path / "kids.csv", body, "cp1252")) == 20_000
    with pytest.raises(RecipeError, match=r"line 2: has the byte 0x81, which is not CP1252; is source\.encoding right"):
        read(tmp_path / "kids.csv", f"url,caption\n{A},".encode() + b"\x81\n", "cp1252")


@pytest.mark.parametrize("name", ["kids.txt", "kids.csv"])
def test_utf_16_without_its_mark_is_refused_by_its_name_and_read_if_it_is_said(tmp_path, name):
    for encoding in ("utf-16-le", "utf-16-be"):
        body = f"url\n{A}\n{B}\n".encode(encoding)
        with pytest.raises(RecipeError, match=f"looks like {encoding.upper()} without its mark.*{encoding}"):
            read(tmp_path / name, body)
        assert (A, "", None) in read(tmp_path / name, body, encoding)
    with pytest.raises(RecipeError, match=r"has no byte order mark: set source\.encoding to utf-16-le"):
        read(tmp_path / name, f"url\n{A}\n".encode("utf-16-le"), "utf-16")


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (f"url\n{A}\n".encode("utf-8-sig"), "cp1252", "begins with the mark of UTF-8, but source.encoding says cp1252"),
        (f"url\n{A}\n".encode("utf-16"), "utf-8", "begins with the mark of UTF-16-LE"),
        (f"url\n{A}\n".encode("utf-16")[:-1], "", "has the byte 0x0A, which is not UTF-16-LE.*is the file cut"),
        (f"url\n{A}\0\n{B}".encode(), "", "line 2: has a NUL character"),
        (
            f"url\n{A}\n{B}?子\n".encode("iso2022_jp"),
            "",
            "line 3: is not UTF-8 but ISO-2022.*source.encoding=iso2022_jp",
        ),
        (b"\x1f\x8b\x08\x00", "", "is a gzip file: unpack it"),
        (b"PAR1....", "", "is a parquet file: name it .parquet"),
    ],
    ids=["another mark", "UTF-16 said to be UTF-8", "cut UTF-16", "NUL", "ISO-2022", "gzip", "parquet"],
)
@pytest.mark.parametrize("name", ["kids.txt", "kids.csv"])
def test_what_contradicts_itself_or_is_no_text_is_refused(tmp_path, name, body, encoding, message):
    with pytest.raises(RecipeError, match=message):
        read(tmp_path / name, body, encoding)


def test_a_workbook_named_csv_says_what_it_is(tmp_path):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    for name in ("kids.csv", "kids.txt"):
        with pytest.raises(RecipeError, match="an Excel workbook: save it as `CSV UTF-8`"):
            read(tmp_path / name, body.getvalue())


@pytest.mark.parametrize("header", ["url,caption", "Caption;URL", '"image url"\ttext', "# kids\n\nURL|alt"])
def test_a_table_named_txt_is_refused_before_its_rows_are_taken_for_addresses(tmp_path, header):
    path = tmp_path / "kids.txt"
    path.write_text(f"{header}\nhttps://example.org/a.png,a kid\n")
    with pytest.raises(RecipeError, match=r"line \d: is a table.*name it \.csv"):
        read_addresses(str(path))
    # Only the first line can be a header: this is a comma that belongs to an address.
    path.write_text("https://example.org/url,link.png\nurl,caption\n")
    assert [address.status for address in read_addresses(str(path))] == ["", "not-an-address"]


@pytest.mark.parametrize("name", ["kids.csv.gz", "kids.xlsx", "kids.jsonl", "kids"])
def test_other_kinds_of_files_are_refused_by_name(tmp_path, name):
    with pytest.raises(RecipeError, match=r"neither \.txt, \.csv nor \.parquet"):
        read(tmp_path / name, f"url\n{A}\n")


# Dialects


@pytest.mark.parametrize(
    "text",
    [
        "url,caption\n{A},{cell}\n",
        "url;caption\r\n{A};{cell}\r\n",
        "url\tcaption\n{A}\t{cell}\n",
        "url|caption\n{A}|{cell}\n",
        '"url","caption"\r"{A}",{cell}\r',
        "sep=;\r\nurl;caption\r\n{A};{cell}\r\n",
        "\n\nurl,caption\n\n{A}, {cell}\n,\n   \n",
        "caption,url\n{cell},{A}",
    ],
    ids=["comma", "semicolon", "tab", "bar", "lone CR", "Excel's hint", "empty lines", "no last line end"],
)
def test_every_dialect_is_read(tmp_path, text):
    caption = 'a "big" kid, waving; with | and\ttab\nin two lines'
    quoted = '"' + caption.replace('"', '""') + '"'
    got = read(tmp_path / "kids.csv", text.format(A=A, cell=quoted))
    assert got == [(A, " ".join(caption.split()), None)]


@pytest.mark.parametrize("cell", ["007", "042", "1e3", "true", "True", "NULL", "NA", "nan", "-0", "2026-11-27", "0x1F"])
def test_cells_are_text_as_they_are_written(tmp_path, cell):
    assert read(tmp_path / "kids.csv", f"url,caption,licence\n{A},{cell},{cell}\n") == [(A, cell, cell)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"url,caption\n{A},a kid, waving\n", r"line 2: has 3 cells, the first row has 2 .*double the quotes"),
        (f"url,caption,licence\n{A},a kid,x\n{B},a kid\n", "line 3: has 2 cells, the first row has 3"),
        (f'url,caption\n{A},"a kid\n{B},b\n', "line 2: opens a quote that is never closed"),
        (
            f'url,caption\n{A},"a kid\n{B},a 5 foot kid\n{A}2,b"\n',
            f"line 2: opens a quote that is closed lines later, with the row `{B},a 5 foot kid` in it; put",
        ),
        (f'url,caption\n"{A},x\n{B},"y\n', "line 2: is not CSV"),
        (f'url,caption\n"{A},x\n{B}",y\n', f"line 2: opens a quote .* the row `{A},x` in it"),
        (f'url\n"{A}\n{B}"\n', f"line 2: opens a quote .* the row `{A}` in it"),
        (f'url,caption\n{A},"x\ny" z\n', r"line 2: is not CSV: ',' expected after '\"' \(up to line 3\)"),
        (f'url,caption\n{A},"say \\"hi\\" now"\n', "line 2: is not CSV"),
        (f"{A}\n{B}\n", "has no column `url`, it has .*the first row must name the columns"),
        ("\n\n", "is empty"),
        ("url\n\n", "is empty"),
        ("url,caption\n,a kid\n", "is empty: its 1 rows have no address"),
        ("url\na.png\nb.png\n", "has no web address in its 2 rows, which begin with `a.png`"),
        (
            f"image_url,link\n{A},{B}\n",
            "two columns that may hold the addresses, `image_url` and `link`: name the right",
        ),
        (f"url,URL\n{A},{B}\n", "two columns of one name, `url` and `URL`"),
        (f"url,Caption,caption\n{A},x,y\n", "two columns of one name, `Caption` and `caption`"),
        (f"url,x;url\n{A},{B}\n", "names its columns in two dialects at once"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused_with_line_and_cure(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        read(tmp_path / "kids.csv", text)


def test_quoted_line_ends_lose_nothing_in_a_large_file(tmp_path):
    path = tmp_path / "kids.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("url", "caption"))
        for number in range(20_000):
            writer.writerow((f"{HOST}/{number}.png", "\n".join(f"line {i} of {number}, with words" for i in range(3))))
    addresses = read_addresses(str(path))
    assert len(addresses) == 20_000 and not any(address.status for address in addresses)
    assert (
        addresses[-1].caption == "line 0 of 19999, with words line 1 of 19999, with words line 2 of 19999, with words"
    )


# Columns


@pytest.mark.parametrize(
    ("header", "caption", "licence"),
    [
        ("URL,TEXT,LICENSE", "x", "y"),
        ("image_url,alt,license", "x", "y"),
        ("Image URL,Description,Licence", "x", "y"),
        ("link,Alt-Text,Rights", "x", "y"),
        ("url,image_url,width", "", None),
        (" url , caption ,licence", "x", "y"),
    ],
)
def test_columns_have_their_usual_names_in_any_case_and_the_log_says_which(tmp_path, caplog, header, caption, licence):
    caplog.set_level("INFO")
    assert read(tmp_path / "kids.csv", f"{header}\n{A},x,y\n") == [(A, caption, licence)]
    assert f"addresses from `{header.split(',')[0].strip()}`" in caplog.text


def test_the_first_caption_of_several_is_taken_and_columns_that_are_not_used_are_named(tmp_path, caplog):
    caplog.set_level("INFO")
    text = f"text,caption,url,width,width\none,two,{A},3,4\nonly,,{B},5,6\n"
    assert read(tmp_path / "kids.csv", text) == [(A, "two", None), (B, "only", None)]
    assert "captions from `caption` or else `text`, no licences; not used: `width`, `width`" in caplog.text


# Parquet


def parquet(tmp_path: Path, **columns: pa.Array) -> list[tuple[str, str, str | None]]:
    pq.write_table(pa.table({"url": pa.array([A, B]), **columns}), tmp_path / "kids.parquet")
    return rows(read_addresses(str(tmp_path / "kids.parquet")))


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_text_of_every_kind_is_read(tmp_path, kind):
    made = pa.array(["a café", None]).cast(kind.value_type if pa.types.is_dictionary(kind) else kind)
    column = made.dictionary_encode() if pa.types.is_dictionary(kind) else made
    assert parquet(tmp_path, TEXT=column) == [(A, "a café", None), (B, "", None)]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([["a", "b"], ["c"]]), "has the type list<.*> in its column `caption`.*write one text a row"),
        (pa.array([{"en": "a"}, {"en": "b"}]), "has the type struct<.*write one text a row"),
        (pa.array([7.0, 8.0]), "has the type double in its column `caption`.*write the numbers as text"),
        (pa.array([7, 8]), "has the type int64"),
        (pa.array([True, False]), "has the type bool"),
        (pa.array([7, 8]).dictionary_encode(), "has the type "),
        (pa.array([b"caf\xe9", b"x"]), r"not UTF-8 text \(row 1, byte 0xE9\)"),
        (pa.array(["x", "a\0b"]), r"NUL character in its column `caption` \(row 2\)"),
    ],
)
def test_what_is_no_text_is_refused_by_column_and_type(tmp_path, column, message):
    with pytest.raises(RecipeError, match=message):
        parquet(tmp_path, caption=column)
    # A column that is not used may be of any type.
    assert parquet(tmp_path, other=column) == [(A, "", None), (B, "", None)]


def test_strings_that_are_not_utf_8_are_refused(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"caf\xe9"]).buffers())
    with pytest.raises(RecipeError, match=r"column `caption` that are not UTF-8 text \(row 2, byte 0xE9\)"):
        parquet(tmp_path, caption=broken)


# Addresses


def test_addresses_of_any_length_and_script_are_kept_whole(tmp_path):
    long = f"{HOST}/{'x' * 200_000}.png?{'y' * 5000}"
    odd = [long, "http://bücher.example/ä ö.png", f"{HOST}/子供.png", "HTTP://KIDS.example/A.png", f"{HOST}/a b.png"]
    assert [url for url, _, _ in read(tmp_path / "kids.txt", "\n".join(odd))] == odd
    text = "url\n" + "".join(f'"{url}"\n' for url in odd)
    assert [url for url, _, _ in read(tmp_path / "kids.csv", text)] == odd


def test_what_is_no_address_is_a_row_that_says_so(tmp_path):
    lines = [A, "kid.png", "ftp://x/y.png", "http:///x.png", "http://[x/y.png", f"{A}\tb", "file:///etc/passwd"]
    (tmp_path / "kids.txt").write_text("\n".join(lines))
    statuses = {address.url: address.status for address in read_addresses(str(tmp_path / "kids.txt"))}
    assert statuses == {
        A: "",
        "kid.png": "not-an-address",
        "ftp://x/y.png": "not-an-address",
        "http:///x.png": "not-an-address",
        "http://[x/y.png": "not-an-address",
        f"{A}\tb": "not-an-address (a line end, tab or control character in it)",
        "file:///etc/passwd": "not-an-address",
    }


# Any table


plain = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
paths = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20)
table = st.lists(
    st.tuples(paths.map(lambda path: f"{HOST}/{path}".strip().strip("\ufeff")), plain, plain),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row[0],
)


def as_read(given_rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str | None]]:
    return [(url, " ".join(caption.split()), licence.strip() or None) for url, caption, licence in given_rows]


@fast
@given(
    table=table,
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_any_table_written_as_csv_comes_back(tmp_path, table, delimiter, quoting, end, encoding):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([("url", "caption", "licence"), *table])
    try:
        assert read(tmp_path / "kids.csv", text.getvalue().encode(encoding)) == as_read(table)
    except RecipeError as error:
        # Python 3.11 writes a CR in a cell without quotes.
        assert quoting == csv.QUOTE_MINIMAL and "\r" in text.getvalue().replace("\r\n", ""), error


@fast
@given(table=table, kind=st.sampled_from([pa.string(), pa.large_string(), pa.binary()]), rows_a_group=st.integers(1, 9))
def test_any_table_written_as_parquet_comes_back(tmp_path, table, kind, rows_a_group):
    columns = [pa.array(column).cast(kind) for column in zip(*table, strict=True)]
    written = pa.table(dict(zip(("url", "caption", "licence"), columns, strict=True)))
    pq.write_table(written, tmp_path / "kids.parquet", row_group_size=rows_a_group)
    assert rows(read_addresses(str(tmp_path / "kids.parquet"))) == as_read(table)


@fast
@given(
    lines=st.lists(paths, min_size=1, max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_lines_come_back(tmp_path, lines, end, encoding):
    urls = [f"{HOST}/{line}".strip().strip("\ufeff") for line in lines]
    got = read(tmp_path / "kids.txt", end.join(urls).encode(encoding))
    assert [url for url, _, _ in got] == list(dict.fromkeys(urls))


# Anything


def seeds() -> list[bytes]:
    text = f'url,caption,licence\r\n{A},"a kid, ""waving""\r\nat night",CC-BY\r\n{B},ein Kind,\r\n'
    return [
        text.encode(),
        text.replace(",", ";").encode("utf-8-sig"),
        text.replace(",", "\t").encode(),
        text.encode("utf-16"),
        f"# kids\n{A}\n{B}\n".encode(),
        f"sep=;\nURL;TEXT\n{A};x\n".encode(),
    ]


TOKENS = [
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"\r",
    b"\n",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"url",
    b"sep=",
    b"\xe9",
    b"=",
]


@few_and_many
@pytest.mark.parametrize("name", ["kids.csv", "kids.tsv", "kids.txt"])
def test_any_text_is_read_or_refused(tmp_path, name, num_inputs):
    fuzz(mutated(seeds(), TOKENS), lambda data: read(tmp_path / name, data), num_inputs, refusals=(RecipeError,))


@few_and_many
def test_any_parquet_is_read_or_refused(tmp_path, num_inputs):
    made = []
    for compression in ("none", "zstd"):
        out = io.BytesIO()
        caption = pa.array(["a kid", None, "ein Kind"])
        table = pa.table({"url": [A, B, f"{HOST}/c.png"], "TEXT": caption.dictionary_encode(), "n": [1, 2, 3]})
        pq.write_table(table, out, compression=compression, row_group_size=2)
        made.append(out.getvalue())
    path = tmp_path / "kids.parquet"
    fuzz(mutated(made, [b"PAR1"]), lambda data: read(path, data), num_inputs, refusals=(RecipeError,))
