//! How a trace is read, for every command that reads one.

use clap::{Args, ValueEnum};
use simulator::trace::{Column, CsvOptions, Format, TraceOptions};

/// The formats, as they are named on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// By the file's name, else by its first bytes
    #[default]
    Auto,
    /// libCacheSim's binary records: time, object, size, next request
    OracleGeneral,
    /// One key a line
    Text,
    /// Rows with a column for the key and perhaps for size and time
    Csv,
    /// JSON lines with a key and perhaps op, size, ts and result, as the server's access log has them: reads and
    /// writes count, but for the write that follows a read that missed, which fills the cache
    AccessLog,
}

/// Format and columns.
#[derive(Args, Debug)]
#[command(next_help_heading = "Trace")]
pub(super) struct TraceArgs {
    /// How the trace is written
    #[arg(long, value_enum, default_value_t)]
    format: FormatName,
    /// The csv column of the key, by name or counted from 1 [default: one named key, id, …]
    #[arg(long, value_name = "COLUMN")]
    key_column: Option<Column>,
    /// The csv column of the size in bytes [default: one named size, bytes, …]
    #[arg(long, value_name = "COLUMN")]
    size_column: Option<Column>,
    /// The csv column of the time in seconds [default: one named time, timestamp, …]
    #[arg(long, value_name = "COLUMN")]
    time_column: Option<Column>,
    /// What separates csv columns [default: a tab where the first line has one, else a comma]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// Whether the first csv row is a header [default: where it has one of the names]
    #[arg(long, value_name = "BOOL")]
    header: Option<bool>,
    /// Refuse keys that are not numbers
    #[arg(long)]
    numeric_keys: bool,
}

impl TraceArgs {
    pub(super) fn options(&self) -> TraceOptions {
        let csv = CsvOptions {
            key: self.key_column.clone(),
            size: self.size_column.clone(),
            time: self.time_column.clone(),
            delimiter: self.delimiter,
            header: self.header,
        };
        let has_columns = csv.key.is_some() || csv.size.is_some() || csv.time.is_some();
        let format = match self.format {
            // Nothing else has columns.
            FormatName::Auto if has_columns || csv.delimiter.is_some() || csv.header.is_some() => Format::Csv,
            FormatName::Auto => Format::Auto,
            FormatName::OracleGeneral => Format::OracleGeneral,
            FormatName::Text => Format::Text,
            FormatName::Csv => Format::Csv,
            FormatName::AccessLog => Format::AccessLog,
        };
        TraceOptions { format, csv, numeric_keys: self.numeric_keys }
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" | b"tab" => Ok(b'\t'),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("a delimiter is one ASCII character, or \\t".to_owned()),
    }
}
