//! Tells formats apart: by the file's name, else by its first bytes.

use std::path::Path;

use super::Format;
use super::csv::KEY_NAMES;

/// The format that a name tells.
pub(super) fn by_name(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    if name.contains("oraclegeneral") || name.contains("oracle-general") {
        return Some(Format::OracleGeneral);
    }
    let plain = [".zst", ".gz"].iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(&name);
    match Path::new(plain).extension()?.to_str()? {
        "txt" => Some(Format::Text),
        "csv" | "tsv" => Some(Format::Csv),
        "jsonl" | "ndjson" | "json" => Some(Format::AccessLog),
        _ => None,
    }
}

/// The format that the first bytes tell.
pub(super) fn by_content(start: &[u8]) -> Format {
    if start.contains(&0) {
        return Format::OracleGeneral;
    }
    let line = first_line(start);
    if line.trim_ascii_start().starts_with(b"{") {
        return Format::AccessLog;
    }
    let line = String::from_utf8_lossy(line).to_lowercase();
    let mut columns = line.split([',', '\t', ';']).map(str::trim);
    if columns.clone().count() > 1 && columns.any(|column| KEY_NAMES.contains(&column)) {
        return Format::Csv;
    }
    Format::Text
}

/// What separates the columns of the first line.
pub(super) fn delimiter(start: &[u8]) -> u8 {
    let line = first_line(start);
    [b'\t', b',', b';'].into_iter().find(|delimiter| line.contains(delimiter)).unwrap_or(b',')
}

fn first_line(start: &[u8]) -> &[u8] {
    start.split(|&byte| byte == b'\n').next().unwrap_or(start)
}
