use std::path::PathBuf;

use super::*;

type First = (&'static str, Option<u32>, Option<u32>);
/// Keys, sizes and times of a file's requests, and the error at its end.
type Read = (Vec<(String, Option<u32>, Option<u32>)>, Option<String>);

fn read_with(name: &str, content: &[u8], options: &TraceOptions) -> Read {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    let told = |error: TraceError| error.to_string().split_once(": ").unwrap().1.to_owned();
    let mut trace = match Trace::open(&path, options, Arc::default()) {
        Ok(trace) => trace,
        Err(error) => return (vec![], Some(told(error))),
    };
    let mut good = vec![];
    loop {
        match trace.read() {
            Ok(Some(raw)) => good.push((raw.key.to_string(), raw.size_bytes, raw.time_seconds)),
            Ok(None) => return (good, None),
            Err(error) => return (good, Some(told(error))),
        }
    }
}

fn read(name: &str, content: &[u8], format: Format) -> Read {
    read_with(name, content, &TraceOptions { format, ..TraceOptions::default() })
}

fn keys(read: &Read) -> Vec<&str> {
    read.0.iter().map(|(key, ..)| key.as_str()).collect()
}

fn binary(objects: &[(u32, u64, u32)]) -> Vec<u8> {
    objects
        .iter()
        .flat_map(|(time, object, size)| {
            let parts: [&[u8]; 4] =
                [&time.to_le_bytes(), &object.to_le_bytes(), &size.to_le_bytes(), &(-1_i64).to_le_bytes()];
            parts.concat()
        })
        .collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 1).unwrap()
}

#[test]
fn text_is_taken_verbatim_line_by_line() {
    let found = read("t", b"a b\r\n\n007\n18446744073709551616\nlast", Format::Auto);
    assert_eq!(keys(&found), ["a b", "007", "18446744073709551616", "last"]);
    assert_eq!(found.1, None);
}

#[test]
fn every_format_is_recognised_plain_and_compressed_by_name_or_by_content() {
    let packed_records = binary(&[(3, 7, 512), (4, u64::MAX, 4096)]);
    let cases: [(&str, &[u8], First); 6] = [
        (".oracleGeneral", &packed_records, ("7", Some(512), Some(3))),
        (".txt", b"7\n18446744073709551615\n", ("7", None, None)),
        (".csv", b"time,key,size\n3,7,512\n4,18446744073709551615,4096\n", ("7", Some(512), Some(3))),
        (".tsv", b"time\tkey\tsize\n3\t7\t512\n4\t18446744073709551615\t4096\n", ("7", Some(512), Some(3))),
        (
            ".jsonl",
            b"{\"ts\":3.9,\"op\":\"get\",\"key\":7,\"size\":512,\"result\":\"hit\"}\n\
              {\"ts\":4,\"op\":\"get\",\"key\":18446744073709551615,\"size\":4096,\"result\":\"hit\"}\n",
            ("7", Some(512), Some(3)),
        ),
        ("", &packed_records, ("7", Some(512), Some(3))),
    ];
    for (extension, content, (key, size, time)) in cases {
        let first = (key.to_owned(), size, time);
        for (packing, packed) in [("", content.to_vec()), (".gz", gzip(content)), (".zst", zstd(content))] {
            for name in [format!("t{extension}{packing}"), "t".to_owned()] {
                let found = read(&name, &packed, Format::Auto);
                assert_eq!(found.1, None, "{name}");
                assert_eq!(found.0[0], first, "{name}, {extension}");
                assert_eq!(keys(&found)[1], "18446744073709551615", "{name}, {extension}");
            }
        }
    }
}

#[test]
fn columns_are_chosen_by_name_or_by_place() {
    let name = |name: &str| Some(Column::Name(name.to_owned()));
    let at = |index| Some(Column::Index(index));
    let csv = |key, size, time| CsvOptions { key, size, time, ..CsvOptions::default() };
    let header = |csv: CsvOptions, header| CsvOptions { header: Some(header), ..csv };
    let none = || csv(None, None, None);
    let cases = [
        ("page,bytes\n\"a,b\",5\n", csv(name("Page"), None, None), "a,b 5 -"),
        ("x;9;1.5\n", CsvOptions { delimiter: Some(b';'), ..csv(at(1), at(2), at(3)) }, "x 9 1"),
        ("when,what\n1,x\n", header(csv(at(2), None, at(1)), true), "x - 1"),
        ("key\n", header(none(), false), "key - -"),
        ("a\n", none(), "a - -"),
        ("key,size\n007,3\n", none(), "007 3 -"),
        ("key,size\nx,3\n", csv(name("kye"), None, None), "unknown column \"kye\": the header has key, size"),
        (
            "page,hits\n1,2\n",
            none(),
            "unknown column \"key\": the first row has page, hits; choose the key's with --key-column, by name or \
             counted from 1",
        ),
        ("1,2\n", header(csv(name("a"), None, None), false), "unknown column \"a\": a name needs a header"),
        (
            "key,size\nx,large\n",
            none(),
            "record 1 (line 2, byte 9): the size is \"large\", which is not a whole number below 2^32",
        ),
        (
            "key,size\nx\n",
            none(),
            "record 1 (line 2, byte 9): the row has 1 columns, the size is in column 2",
        ),
        ("key,size\n,3\n", none(), "record 1 (line 2, byte 9): the key is empty"),
        ("key,size\n", none(), "the trace holds no request"),
    ];
    for (content, csv, expected) in cases {
        let options = TraceOptions { format: Format::Csv, csv, numeric_keys: false };
        let (good, bad) = read_with("t", content.as_bytes(), &options);
        let shown = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
        let good = good.first().map(|(key, size, time)| format!("{key} {} {}", shown(*size), shown(*time)));
        let found = bad.or(good).unwrap();
        assert!(found.ends_with(expected), "{content:?}: {found}");
    }
}

#[test]
fn an_access_log_is_its_reads_and_what_else_changes_the_cache() {
    let line = |op: &str, key: &str, result: &str, size: u32| {
        let size = if size == 0 { String::new() } else { format!(",\"size\":{size},\"value_bytes\":1") };
        format!("{{\"op\":\"{op}\",\"key_hash\":\"{key}\",\"result\":\"{result}\"{size}}}")
    };
    let get = |key: &str, result: &str| line("get", key, result, 0);
    let set = |key: &str, size| line("set", key, "stored", size);
    let delete = |key: &str| line("delete", key, "deleted", 0);
    let cases: [(Vec<String>, &str); 15] = [
        // The write tells the size of the read that missed, across other requests.
        (
            vec![get("a", "miss"), get("b", "miss"), set("b", 5), set("a", 7), get("a", "hit")],
            "read a 7, read b 5, read a 7",
        ),
        (vec![get("a", "miss"), set("a", 5), set("a", 6)], "read a 5, write a 6"),
        (vec![set("a", 5), get("a", "hit")], "write a 5, read a 5"),
        // Nobody filled it.
        (vec![get("a", "miss"), get("a", "miss")], "read a -, read a -"),
        (vec![set("a", 9), delete("a")], "write a 9, delete a 9"),
        (vec![delete("a"), get("a", "miss")], "read a -"),
        // What is stored after a delete has not been asked for since.
        (vec![get("a", "miss"), delete("a"), set("a", 3)], "read a -, delete a 1, write a 3"),
        (vec![line("get", "a", "hit", 4), line("get", "a", "error", 0)], "read a 4"),
        (vec![get("a", "miss"), line("set_if_absent", "a", "exists", 5), set("a", 6)], "read a 6"),
        (vec![get("a", "miss"), line("set", "a", "rejected", 99), get("b", "hit")], "read a -, read b -"),
        (vec![line("compare_and_set", "a", "not_found", 5), get("a", "hit")], "read a -"),
        (vec![line("compare_and_set", "a", "stored", 5)], "write a 5"),
        (vec![set("a", 5), line("delete", "a", "not_found", 0)], "write a 5, delete a 5"),
        (vec![line("stats", "a", "", 0), get("a", "hit")], "read a -"),
        (vec!["{\"key\":\"a\",\"namespace\":\"n\",\"value_bytes\":3}".to_owned()], "read n\u{1f}a 3"),
    ];
    for (lines, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let options = TraceOptions { format: Format::AccessLog, ..TraceOptions::default() };
        let mut trace = Trace::open(&path, &options, Arc::default()).unwrap();
        let mut found = Vec::new();
        while let Some(RawRequest { key, size_bytes, operation, .. }) = trace.read().unwrap() {
            let size = size_bytes.map_or("-".to_owned(), |size| size.to_string());
            found.push(format!("{operation:?} {key} {size}").to_lowercase());
        }
        assert_eq!(found.join(", "), expected, "{lines:?}");
    }
}

/// A pipe that yields a byte at a time.
struct Trickle(io::Cursor<Vec<u8>>);

impl io::Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn a_format_is_recognised_however_little_of_it_comes_at_a_time() {
    for content in [
        &binary(&[(3, 7, 512)])[..],
        b"time,key,size\n3,7,512\n",
        b"time\tkey\tsize\n3\t7\t512\n",
        b"{\"ts\":3,\"op\":\"get\",\"key\":7,\"size\":512,\"result\":\"hit\"}\n",
    ] {
        for content in [content.to_vec(), gzip(content), zstd(content)] {
            let content = Trickle(io::Cursor::new(content));
            let mut trace = Trace::of(Path::new("-"), content, &TraceOptions::default()).unwrap();
            let request = trace.read().unwrap().unwrap();
            assert_eq!((request.key, request.size_bytes), (TraceKey::Number(7), Some(512)));
            assert!(trace.read().unwrap().is_none());
        }
    }
}

#[test]
fn a_damaged_file_says_where() {
    let whole = binary(&[(0, 1, 1), (0, 2, 1)]);
    let mut cut_zstd = zstd(b"1\n2\n");
    cut_zstd.truncate(cut_zstd.len() - 3);
    let mut cut_gzip = gzip(b"1\n2\n");
    cut_gzip.truncate(cut_gzip.len() - 12);
    let long = vec![b'x'; 65_536];
    let cases: [(&str, &[u8], Format, usize, &str); 13] = [
        (
            "t",
            &whole[..30],
            Format::OracleGeneral,
            1,
            "record 2 (byte 24): the file ends after 6 of the record's 24 bytes",
        ),
        (
            "t",
            b"one\ntwo\nthree\nfour\nfive\nsix\n",
            Format::OracleGeneral,
            0,
            "record 1 (byte 0): this is no oracle-general record: its next request would be number",
        ),
        ("t", b"ok\n\xff\n", Format::Text, 1, "record 2 (line 2, byte 3): the line is not UTF-8"),
        ("t", &long, Format::Text, 0, "the line is longer than 2048 bytes"),
        ("t", &cut_zstd, Format::Text, 0, "record 1"),
        ("t", &cut_gzip, Format::Text, 0, "record 1"),
        ("t.zst", b"1\n2\n", Format::Text, 0, "record 1"),
        ("t.gz", b"1\n2\n", Format::Text, 0, "record 1"),
        ("t", b"", Format::Auto, 0, "record 1 (line 1, byte 0): the trace holds no request"),
        ("t.oracleGeneral", b"", Format::Auto, 0, "record 1 (byte 0): the trace holds no request"),
        (
            "t",
            b"{\"op\":\"get\"}\n",
            Format::Auto,
            0,
            "record 1 (line 1, byte 0): this is no access-log record: it has neither",
        ),
        (
            "t",
            b"{\"key\":\"a\"}\n\n{\"key\"}\n",
            Format::AccessLog,
            1,
            "record 2 (line 3, byte 13): this is no access-log record",
        ),
        ("t", b"{\"op\":\"delete\",\"key\":\"a\"}\n", Format::AccessLog, 0, "the trace holds no request"),
    ];
    for (name, content, format, good, expected) in cases {
        let found = read(name, content, format);
        assert_eq!(found.0.len(), good, "{expected}");
        let error = found.1.unwrap_or_default();
        assert!(error.contains(expected), "{error:?}, not {expected:?}");
    }
    let numeric = TraceOptions { numeric_keys: true, ..TraceOptions::default() };
    let (good, bad) = read_with("t", b"7\nx\n", &numeric);
    assert_eq!(good.len(), 1);
    assert!(bad.unwrap().ends_with("the key is \"x\", which is not a whole number below 2^64"));
    let missing = Trace::open(Path::new("no/such/file"), &numeric, Arc::default()).err().unwrap();
    assert_eq!(missing.to_string(), "no/such/file: no such file or directory");
}
