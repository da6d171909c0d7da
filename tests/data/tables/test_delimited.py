"""Delimited text: the layout that is found out, the options that settle it, and what mistakes say."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from nnkit.data.examples import RawTable
from nnkit.data.tables.delimited import read_delimited
from nnkit.data.tables.options import TableOptions
from nnkit.errors import ConfigError, DataError, FileError

VALUES = [(f"{0.25 * i:.2f}", f"{i * i}", "ab"[i % 2]) for i in range(30)]


def rows(separator: str = ",", end: str = "") -> str:
    return "".join(separator.join(row) + end + "\n" for row in VALUES)


def read(folder: Path, content: str | bytes, name: str = "data.csv", **options: object) -> RawTable:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_delimited(path, TableOptions(**options))  # type: ignore[arg-type]


def cells(raw: RawTable) -> list[tuple[str, ...]]:
    assert all(
        field.type == pa.string() and raw.table[field.name].null_count == 0 for field in raw.table.schema
    )
    return list(zip(*raw.table.to_pydict().values(), strict=True))


def test_cells_are_the_strings_of_the_file(tmp_path: Path) -> None:
    text = 'a,b,c\n007,NA, x\n,"",null\n1e5,"q,""r""",?\n"line\nbreak",+5,  \n'
    raw = read(tmp_path, text)
    assert raw.table.column_names == ["a", "b", "c"]
    assert cells(raw) == [tuple(row) for row in csv.reader(io.StringIO(text))][1:]
    assert (raw.named, raw.separator, raw.index, raw.notes) == (True, ",", (), ())


@pytest.mark.parametrize("separator", ["\t", ";", "|", ",", " "])
def test_separator_is_found(tmp_path: Path, separator: str) -> None:
    raw = read(tmp_path, separator.join("xzy") + "\n" + rows(separator))
    assert (raw.separator, raw.table.column_names, cells(raw)) == (separator, ["x", "z", "y"], VALUES)


def test_runs_of_spaces_separate(tmp_path: Path) -> None:
    text = "".join(f" {x:>6}  {z:>5}   {y} \n" for x, z, y in VALUES)
    raw = read(tmp_path, text, "housing.data")
    assert (raw.separator, raw.named, cells(raw)) == ("whitespace", False, VALUES)
    raw = read(tmp_path, "".join(f" {x}  {z} \t {len(y)}\n" for x, z, y in VALUES))
    assert cells(raw)[3] == ("0.75", "9", "1")
    raw = read(tmp_path, "".join(f'{x}   "a  {z}"   {y}\n' for x, z, y in VALUES))
    assert cells(raw)[3] == ("0.75", "a  9", "b")


def test_double_tabs_are_runs_where_that_makes_rows_even(tmp_path: Path) -> None:
    text = "".join(
        "\t".join(row[:2]) + "\t" * (1 + (i % 7 == 3)) + row[2] + "\n" for i, row in enumerate(VALUES)
    )
    raw = read(tmp_path, text, "seeds.tsv")
    assert (raw.separator, cells(raw)) == ("whitespace", VALUES)


def test_double_tabs_are_empty_cells_where_that_makes_rows_even(tmp_path: Path) -> None:
    gaps = [(x, "" if i % 7 == 3 else z, y) for i, (x, z, y) in enumerate(VALUES)]
    raw = read(tmp_path, "x\tz\ty\n" + "".join("\t".join(row) + "\n" for row in gaps))
    assert (raw.separator, cells(raw)) == ("\t", gaps)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("id|unit,z,y", "A|kg,0.5,a"),
        ("item,z,y", "A|kg,0.5,a"),
        ("x,z,tags;more", "0.5,2,a;b"),
        ("id|unit,y", "A|kg,b"),
        ("id|unit,z,y", "12|kg,foo,bar"),
        ("a;b,c;d,e", "x;y,u;v,w"),
    ],
)
def test_other_separators_within_cells_do_not_win_over_the_comma(
    tmp_path: Path, header: str, row: str
) -> None:
    raw = read(tmp_path, f"{header}\n" + f"{row}\n" * 20)
    assert (raw.separator, raw.table.column_names) == (",", header.split(","))
    assert cells(raw) == [tuple(row.split(","))] * 20


@pytest.mark.parametrize(
    "text",
    [
        "x;z;y\n1,5;2,5;a\n2,5;3,5;b\n",
        "1,5;2;0\n2,5;3;1\n",
        "1,5;2,5\n0,5;1,5\n",
        "57.1;3;3,7;240\n60.2;4;1,2;200\n",
    ],
)
def test_decimal_commas_do_not_separate(tmp_path: Path, text: str) -> None:
    raw = read(tmp_path, text)
    assert raw.separator == ";"
    assert cells(raw)[-1] == tuple(text.splitlines()[-1].split(";"))


def test_decimal_commas_between_spaces_do_not_separate(tmp_path: Path) -> None:
    assert cells(read(tmp_path, "1,5 2,5 3\n0,5 1,5 4\n"))[0] == ("1,5", "2,5", "3")


def test_space_in_each_text_does_not_win_over_tabs(tmp_path: Path) -> None:
    raw = read(tmp_path, "a\tb, c\td\n" + "John 5\tx, y\t2\n" * 30)
    assert (raw.separator, raw.table.column_names) == ("\t", ["a", "b, c", "d"])


def test_spaces_in_texts_and_times_do_not_separate(tmp_path: Path) -> None:
    raw = read(tmp_path, "2024-01-01 10:00,5,the thing\n2024-01-02 11:00,6,a thing\n")
    assert (raw.separator, raw.table.num_columns) == (",", 3)


@pytest.mark.parametrize(
    "lines",
    [
        ["price", "1", "2", "3"],
        ["text", "a fine one", "two, good ones", "three, all, grim"],
        ["x", "1,5", "2,5"],
    ],
)
def test_one_column_has_no_separator(tmp_path: Path, lines: list[str]) -> None:
    raw = read(tmp_path, "\n".join(lines))
    assert (raw.separator, raw.table.column_names) == ("", lines[:1])
    assert cells(raw) == [(line,) for line in lines[1:]]


def test_one_column_may_be_quoted(tmp_path: Path) -> None:
    raw = read(tmp_path, 'text\n"a, b"\n"c\nd"\ne\n')
    assert cells(raw) == [("a, b",), ("c\nd",), ("e",)]


@pytest.mark.parametrize(("separator", "line"), [(";", "sep=;"), ("|", '"sep=|"'), ("\t", "SEP=\t")])
def test_separator_line_of_excel_is_left_out(tmp_path: Path, separator: str, line: str) -> None:
    raw = read(tmp_path, f"{line}\r\n" + separator.join("xzy") + "\n" + rows(separator))
    assert (raw.separator, raw.table.column_names, cells(raw)) == (separator, ["x", "z", "y"], VALUES)


def test_given_separator_is_taken(tmp_path: Path) -> None:
    raw = read(tmp_path, "a,b:c\n1,2:3\n", separator=":")
    assert (raw.table.column_names, cells(raw)) == (["a,b", "c"], [("1,2", "3")])
    raw = read(tmp_path, "x  y\na\t \t1\n", separator="whitespace")
    assert (raw.table.column_names, cells(raw)) == (["x", "y"], [("a", "1")])
    with pytest.raises(ConfigError, match="`separator` and `quote` are both"):
        read(tmp_path, "a'b\n1'2\n", separator="'", quote="'")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1,2,0\n3,4,1\n", None),
        ("x,1\ny,2\nx,3\n", None),
        ("colour,shape\nred,round\nblue,flat\n", ["colour", "shape"]),
        ("\n\na,b\n1,2\n", ["a", "b"]),
        ("0,1,2\n1.5,2,x\n", ["0", "1", "2"]),
        ("\ufeffa,b\r\n1,2\r\n", ["a", "b"]),
        (" a , b \n1,2\n", ["a", "b"]),
        ("country,2019,2020,2021\nAT,12,14,15\nBE,22,24,25\n", ["country", "2019", "2020", "2021"]),
        ("country,1990,2000,2005\nAT,12.5,14.5,15\nBE,22,24,25\n", ["country", "1990", "2000", "2005"]),
        ("v1,v2,,\n" + "ham,Go on,,\n" * 30 + "spam,Free,x,\n", ["v1", "v2", "2"]),
        ("country,2019,2020\nAT,0.5,0.6\nBE,0.7,0.8\n", ["country", "2019", "2020"]),
        ("2019,2020,2021\n1.5,2.5,3\n2.5,3.5,4\n", ["2019", "2020", "2021"]),
        ("900,910,920,moisture\n.51,.52,.53,12.1\n.61,.62,.63,13.1\n", ["900", "910", "920", "moisture"]),
        ("1,2,3\n4,5,6\n7,8,10\n", None),
        ("1,2,3\n10,20,30\n100,200,300\n", None),
        ("2019,2020,2021\n2018,2017,2016\n", None),
        ("red,100,200\nblue,1.5,2.5\nred,3,4\n", None),
        ("5.1,3.5,a\n4.9,3.0,b\n", None),
    ],
)
def test_header_is_found(tmp_path: Path, text: str, names: list[str] | None) -> None:
    raw = read(tmp_path, text)
    assert raw.named == (names is not None)
    assert raw.table.column_names == (names or [str(number) for number in range(raw.table.num_columns)])


def test_header_option_settles_it(tmp_path: Path) -> None:
    assert cells(read(tmp_path, "a,b\n1,2\n", header=False)) == [("a", "b"), ("1", "2")]
    raw = read(tmp_path, "5,6\n1,2\n", header=True)
    assert (raw.named, raw.table.column_names, cells(raw)) == (True, ["5", "6"], [("1", "2")])
    raw = read(tmp_path, "junk\n\nmore,of,it\n5,6\n1,2\n", header=2)
    assert (raw.table.column_names, cells(raw)) == (["5", "6"], [("1", "2")])
    with pytest.raises(ConfigError, match="header = -1 must be a row's number, counted from 0"):
        TableOptions(header=-1)
    raw = read(tmp_path, "junk\njunk;junk\na,b\n1,2\n", skip_rows=1, header=1)
    assert raw.table.column_names == ["a", "b"]


@pytest.mark.parametrize("index", [True, False])
def test_pandas_frame_is_read_again(tmp_path: Path, index: bool) -> None:
    frame = pd.DataFrame({"text": ["a fine, one", "bad", "good"], "label": ["x", "y", "x"]}, index=[4, 2, 7])
    for name in (None, "Unnamed: 0"):
        raw = read(tmp_path, frame.rename_axis(name).to_csv(index=index))
        assert raw.index == (((name or "0"),) if index else ())
        assert raw.table.column_names[-2:] == ["text", "label"]
        assert raw.table["text"].to_pylist() == list(frame["text"])


def test_unnamed_column_is_an_index_only_if_it_names_the_rows(tmp_path: Path) -> None:
    assert read(tmp_path, ",z\nr1,1\nr2,2\n").index == ("0",)
    assert read(tmp_path, ",z\nr1,1\nr1,2\n").index == ()
    raw = read(tmp_path, ",t,y\n0,good,a\n1,bad,b\n0,fine,a\n")
    assert (raw.table.column_names, raw.index) == (["0", "t", "y"], ())
    assert read(tmp_path, ",z\n0.5,1\n1.5,2\n").index == ()
    raw = read(tmp_path, ",z\n" + "".join(f"{i},1\n" for i in range(20_000)) + "5,1\n")
    assert (raw.table.column_names, raw.index) == (["0", "z"], ())
    raw = read(tmp_path, "x,,y\n1,2,a\n3,4,b\n")
    assert (raw.table.column_names, raw.index) == (["x", "1", "y"], ())


def test_numbered_columns_of_pandas_are_distinct_from_its_index(tmp_path: Path) -> None:
    raw = read(tmp_path, pd.DataFrame([[1.5, 2], [3, 4]]).to_csv())
    assert (raw.table.column_names, raw.index) == (["0_", "0", "1"], ("0_",))


@pytest.mark.parametrize("separator", [",", " ", "\t"])
def test_row_names_of_r_have_no_cell_in_the_header(tmp_path: Path, separator: str) -> None:
    lines = "".join(separator.join((f'"{i + 1}"', *row)) + "\n" for i, row in enumerate(VALUES))
    raw = read(tmp_path, separator.join(('"x"', '"row_names"', '"y"')) + "\n" + lines)
    assert raw.table.column_names == ["row_names_", "x", "row_names", "y"]
    assert (raw.index, cells(raw)[7]) == (("row_names_",), ("8", *VALUES[7]))


def test_row_names_beside_one_column_are_quoted(tmp_path: Path) -> None:
    raw = read(tmp_path, '"x"\n"r1",0.5\n"r2",1.5\n')
    assert (raw.index, cells(raw)) == (("row_names",), [("r1", "0.5"), ("r2", "1.5")])


def test_header_with_too_few_cells_is_named(tmp_path: Path) -> None:
    late = "".join(f"{i},3,1\n" for i in range(6, 20_000)) + "9,3,1\n"
    with pytest.raises(DataError, match="the header has 2 cells and the rows have 3"):
        read(tmp_path, "a,b\n5,3,1\n" + late)
    with pytest.raises(DataError, match="the header has 2 cells and the rows have 3"):
        read(tmp_path, "a,b\n" + "1,2,\n" * 20_000 + "1,2,3\n")
    with pytest.raises(DataError, match=r"line 2 has 4 cells where 2 .*needs quotes.*`skip_rows`"):
        read(tmp_path, "a,b\n1,2,3,4\n2,3,4,5\n1,2,3,4\n")


@pytest.mark.parametrize("header", ["x,z,y", "x,z,y,", ""])
def test_separator_at_the_end_of_rows_makes_no_column(tmp_path: Path, header: str) -> None:
    raw = read(tmp_path, header + "\n" + rows(end=","))
    assert raw.table.column_names == (["x", "z", "y"] if header else ["0", "1", "2"])
    assert cells(raw) == VALUES
    assert raw.notes == ("Left out: the last column, which has no name and no values.",)


def test_several_blank_columns_at_the_end_are_left_out(tmp_path: Path) -> None:
    raw = read(tmp_path, "x,z,y,,\n" + rows(end=", ,"))
    assert (raw.table.column_names, raw.notes[0][:23]) == (["x", "z", "y"], "Left out: the last 2 co")
    assert read(tmp_path, "x,z,y,\n" + rows(end=",5")).table.column_names == ["x", "z", "y", "3"]
    assert read(tmp_path, "x,z,y,\n" + rows()).table.column_names == ["x", "z", "y"]
    assert read(tmp_path, "1,2,\n").table.num_columns == 3


def test_line_of_units_is_left_out(tmp_path: Path) -> None:
    raw = read(tmp_path, "x,z,y\nm/s,kg,-\n" + rows())
    assert (cells(raw), raw.notes) == (VALUES, ("Left out below the names: a line of units, 'm/s, kg, -'.",))


@pytest.mark.parametrize("line", ["NA,NA,a", "x1,5,a", "n/k,n/k,a", "$5,12 kg,a", ",,a"])
def test_first_row_that_may_be_data_is_kept(tmp_path: Path, line: str) -> None:
    raw = read(tmp_path, f"x,z,y\n{line}\n" + rows() + "n/k,n/k,b\n")
    assert len(raw.table) == 32


def test_hash_lines_at_the_beginning_are_left_out(tmp_path: Path) -> None:
    raw = read(tmp_path, "# exported 2024\n# by, a; tool\n\nx,z,y\n" + rows())
    assert (cells(raw), raw.notes) == (VALUES, ("Left out at the beginning: 2 lines with '#'.",))


def test_names_may_stand_in_a_hash_line(tmp_path: Path) -> None:
    raw = read(tmp_path, "# numpy\n# x,z,y\n" + rows())
    assert (raw.table.column_names, cells(raw)) == (["x", "z", "y"], VALUES)
    assert len(raw.notes) == 2
    assert read(tmp_path, "#,name\n1,Bob\n2,Al\n").table.column_names == ["#", "name"]
    assert read(tmp_path, "#id,name\n1,Bob\n2,Al\n").table.column_names == ["#id", "name"]
    assert len(read(tmp_path, "#ff0000,red\n#00ff00,green\n#0000ff,red\n").table) == 3


def test_comment_option_holds_anywhere_but_in_quotes(tmp_path: Path) -> None:
    text = '% 5" a\nx,z\n1,"a\n% b"\n% it\'s\n2,b\n%'
    assert cells(read(tmp_path, text, comment="%")) == [("1", "a\n% b"), ("2", "b")]
    with pytest.raises(DataError, match=r"line 5 has 3 cells where 2"):
        read(tmp_path, "x,z\n#\n1,2\n#\n1,2,3\n", comment="#")


@pytest.mark.parametrize(
    "title",
    [
        "Report of things\n\n",
        "Report of things\n",
        "Report\nby Bob, 2024\n\n",
        "Report of things,,\n,,\n",
        "Report,,\n",
    ],
)
def test_title_above_the_names_is_left_out(tmp_path: Path, title: str) -> None:
    raw = read(tmp_path, title + "x,z,y\n" + rows())
    assert (raw.table.column_names, cells(raw)) == (["x", "z", "y"], VALUES)
    assert raw.notes[0].startswith("Left out above the table: ")
    assert "'Report" in raw.notes[0]


def test_title_above_words_between_spaces_is_set_apart_by_a_blank_line(tmp_path: Path) -> None:
    raw = read(tmp_path, "Report\n\nx z y\n" + rows(" "))
    assert (raw.separator, raw.table.column_names, cells(raw)) == (" ", ["x", "z", "y"], VALUES)


def test_title_that_is_not_certain_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    text = "Report of things\ncolour,shape,size\nred,round,big\nblue,flat,big\n"
    with pytest.raises(DataError, match=r"from line 2 on have 3 cells, but line 1 .*`skip_rows` = 1"):
        read(tmp_path, text)
    assert read(tmp_path, text, skip_rows=1).table.column_names == ["colour", "shape", "size"]


def test_backslash_before_quotes_in_cells(tmp_path: Path) -> None:
    lines = "".join(f'"say \\"hi, there\\" {i} ""times""",{i},a\n' for i in range(30))
    assert cells(read(tmp_path, "t,z,y\n" + lines))[3] == ('say "hi, there" 3 "times"', "3", "a")
    late = "t,z,y\n" + "b,2,a\n" * 20_000 + lines
    assert cells(read(tmp_path, late))[20_003] == ('say "hi, there" 3 "times"', "3", "a")


def test_backslash_at_the_end_of_a_quoted_cell_is_a_character(tmp_path: Path) -> None:
    text = 't,z\n"C:\\dir\\",1\n"D:\\a,b\\",2\n"{""a"": ""x\\""y""}",3\n'
    assert cells(read(tmp_path, text)) == [("C:\\dir\\", "1"), ("D:\\a,b\\", "2"), ('{"a": "x\\"y"}', "3")]


def test_quote_option(tmp_path: Path) -> None:
    assert cells(read(tmp_path, "t,z\n'a, b',1\n'it''s',2\n", quote="'")) == [("a, b", "1"), ("it's", "2")]
    assert cells(read(tmp_path, 't,z\n"a,1\nb",2\n', quote="")) == [('"a', "1"), ('b"', "2")]


def test_single_quotes_around_commas_are_found(tmp_path: Path) -> None:
    assert cells(read(tmp_path, "k,t,z\n'1','a, b',1\n'2','it''s',2\n")) == [
        ("1", "a, b", "1"),
        ("2", "it's", "2"),
    ]
    assert cells(read(tmp_path, "t,z\n'a',1\n'b',2\n")) == [("'a'", "1"), ("'b'", "2")]


def test_lone_quotes_between_tabs_are_text(tmp_path: Path) -> None:
    raw = read(tmp_path, 'ham\t"oh\nspam\tbuy\nham\t5" wide\n', "data.tsv")
    assert raw.table["1"].to_pylist() == ['"oh', "buy", '5" wide']
    raw = read(tmp_path, 'y\tt\nham\t"oh\nno"\nspam\tbuy\n')
    assert raw.table["t"].to_pylist() == ["oh\nno", "buy"]


def test_blanks_around_cells_stay_and_before_quotes_go(tmp_path: Path) -> None:
    raw = read(tmp_path, "39, Private, 12, <=50K\n40, ?, 14, >50K\n\n", "adult.data")
    assert cells(raw)[1] == ("40", " ?", " 14", " >50K")
    raw = read(tmp_path, 'a, b, c\n1, "x, y" , z\n2,  "say ""a, ""b""", w\n')
    assert raw.table.column_names == ["a", "b", "c"]
    assert cells(raw) == [("1", "x, y", " z"), ("2", 'say "a, "b"', " w")]
    late = "a,b\n" + "1,2\n" * 20_000 + '3, "x, y"\n'
    assert cells(read(tmp_path, late))[-1] == ("3", "x, y")


def test_lines_of_blanks_are_left_out(tmp_path: Path) -> None:
    raw = read(tmp_path, "\n \nx,z,y\n" + rows().replace("\n", "\n\n  \n") + "\t\n\x1a")
    assert cells(raw) == VALUES


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    raw = read(tmp_path, "x,z\né,日本\n".encode(encoding))
    assert (raw.table.column_names, cells(raw)) == (["x", "z"], [("é", "日本")])
    assert len(raw.notes) == (encoding != "utf-8-sig")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-8"])
def test_encoding_option(tmp_path: Path, encoding: str) -> None:
    assert cells(read(tmp_path, "x,z\né,1\n".encode(encoding), encoding=encoding)) == [("é", "1")]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("", {}, "empty"),
        (" \n\n", {}, "empty"),
        ("a,b\n1,2\n", {"skip_rows": 9}, "empty after `skip_rows`"),
        ("a,b\n", {}, "not a single row"),
        ("a,b\n1,2\n1,2,3\n", {}, "line 3 has 3 cells where 2 are expected"),
        ("a,b\n1,2\n1\n", {}, "`separator`, `quote`, `comment`, `skip_rows` or `header`"),
        ("\n# c\na,b\n\n1,2\n\n" + "1,2\n" * 20 + '"x\ny",2\n1,2,3\n', {}, "line 29 has 3 cells"),
        ("\r\na,b\r\n" + "1,2\r\n" * 40 + "1,2,3\r\n", {}, "line 43 has 3 cells"),
        ("a  b\n" + "1  2\n" * 40 + "1  2  3\n", {}, "line 42 has 3 cells"),
        ('a,b,c\n1,"2,0\n3,4,1\n', {}, 'line 2 has a cell that begins with " and is never closed'),
        ("a,a\n1,2\n", {}, "columns 1 and 2 are both named 'a'"),
        ("a,b\nx,é\n".encode("latin-1"), {}, "line 2 is not UTF-8 text (its byte 3 is 0xe9): say"),
        ("a,b\nx,é\n".encode("latin-1"), {}, '`encoding` = "latin-1"'),
        (
            ("a,b\n" + "x,y\n" * 20_000 + "x,é\n").encode("latin-1"),
            {},
            "line 20002 is not UTF-8 text (its byte 3",
        ),
        (b"a,b\nx,\x81\n", {"encoding": "cp1252"}, "line 2, byte 3 is not cp1252 text"),
        ("a,b\n1,2\n3,\0\n", {}, "line 3 holds a NUL, its byte 3"),
        ("a,b\n1,2\n".encode("utf-16-le"), {}, '`encoding` = "utf-16-le"'),
    ],
)
def test_bad_text_is_named(tmp_path: Path, content: str | bytes, options: dict, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, content, **options)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x01\x00\x02\x00" * 50, "neither text"),
        (bytes(range(1, 256)) * 4, "neither text"),
        ("<!DOCTYPE html>\n<html><body>Sign in, please</body></html>\n", "is a web page, not a table"),
        ("\n <HTML lang=en>\n", "is a web page, not a table"),
        ('<?xml version="1.0"?>\n<a></a>\n', "is XML, not a table"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(FileError, match=words):
        read(tmp_path, content)


def test_encoding_that_is_not_of_texts_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`encoding` 'base64'"):
        read(tmp_path, "a,b\n1,2\n", encoding="base64")


def test_packed_text_is_read(tmp_path: Path) -> None:
    raw = read(tmp_path, gzip.compress(("x\tz\ty\n" + rows("\t")).encode("utf-16")), "data.tsv.gz")
    assert (raw.separator, cells(raw)) == ("\t", VALUES)


def test_rows_longer_than_a_block_are_read(tmp_path: Path) -> None:
    text = "x" * 5_000_000
    assert cells(read(tmp_path, "a,b\n1,2\n" * 9 + f'3,"{text}, y"\n4,5\n'))[-2] == ("3", f"{text}, y")


def test_many_columns(tmp_path: Path) -> None:
    line = ",".join(map(str, range(100, 20_100)))
    raw = read(tmp_path, (line.replace("1", "2") + "\n") * 60)
    assert (raw.table.num_columns, len(raw.table)) == (20_000, 60)
    with pytest.raises(DataError, match=r"more columns than the 100000 .*\.npy"):
        read(tmp_path, "1," * 100_000 + "1\n")
