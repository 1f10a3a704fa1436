//! Rows of columns, of which one is the key and others may be size and time.

use std::fmt;
use std::str::FromStr;

use csv::{ByteRecord, Reader, ReaderBuilder};

use super::{Decode, Input, Operation, Position, Problem, RawRequest, TraceKey};

/// A column by its name in the header or by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// As the header has it, in any case of letters.
    Name(String),
    /// Counted from 1.
    Index(usize),
}

impl FromStr for Column {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => Err("columns are counted from 1".to_owned()),
            Ok(index) => Ok(Self::Index(index)),
            Err(_) if text.is_empty() => Err("a column has a name or a number".to_owned()),
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Index(index) => index.fmt(f),
        }
    }
}

/// Which columns to read, and how the rows are written.
#[derive(Clone, Debug, Default)]
pub struct CsvOptions {
    /// The key's column. By default the one with a usual name, or the only one.
    pub key: Option<Column>,
    /// The size's column, in bytes. By default the one with a usual name, if any.
    pub size: Option<Column>,
    /// The time's column, in seconds. By default the one with a usual name, if any.
    pub time: Option<Column>,
    /// What separates columns. By default a tab if the first line has one, else a comma.
    pub delimiter: Option<u8>,
    /// Whether the first row is a header. By default it is if it has a usual or a chosen name.
    pub header: Option<bool>,
}

pub(super) const KEY_NAMES: &[&str] =
    &["key", "key_hash", "obj_id", "object_id", "objid", "id", "object", "obj"];
const SIZE_NAMES: &[&str] = &["size", "obj_size", "object_size", "size_bytes", "value_bytes", "bytes"];
const TIME_NAMES: &[&str] = &["time", "timestamp", "ts", "time_seconds", "clock_time"];

/// Places of columns, counted from 0.
struct Places {
    key: usize,
    size: Option<usize>,
    time: Option<usize>,
}

pub(super) struct Csv {
    reader: Reader<Input>,
    row: ByteRecord,
    places: Places,
    /// The row in hand is a request that was read to see whether it is a header.
    pending: bool,
    records: u64,
    size_bytes: Option<u32>,
    time_seconds: Option<u32>,
}

impl Csv {
    pub(super) fn new(mut input: Input, options: &CsvOptions) -> Result<Self, Problem> {
        let delimiter = match options.delimiter {
            Some(delimiter) => delimiter,
            None => super::detect::delimiter(input.fill_buf()?),
        };
        let mut reader =
            ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(input);
        let mut row = ByteRecord::new();
        let any = reader.read_byte_record(&mut row).map_err(problem)?;
        let (places, is_header) = places(&row, options)?;
        let pending = any && !is_header;
        Ok(Self { reader, row, places, pending, records: 0, size_bytes: None, time_seconds: None })
    }

    fn field(&self, place: usize, what: &'static str) -> Result<&[u8], Problem> {
        let missing = Problem::MissingColumn { what, column: place + 1, found: self.row.len() };
        self.row.get(place).ok_or(missing)
    }

    fn number(&self, place: Option<usize>, what: &'static str) -> Result<Option<u32>, Problem> {
        let Some(place) = place else { return Ok(None) };
        let text = String::from_utf8_lossy(self.field(place, what)?);
        let text = text.trim();
        // A time may have a fraction, which is cut off.
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_whole = whole.len() == text.len();
        if (is_whole || (what == "time" && fraction.bytes().all(|byte| byte.is_ascii_digit())))
            && let Ok(number) = whole.parse()
        {
            return Ok(Some(number));
        }
        let allowed = "a whole number below 2^32";
        Err(Problem::NotANumber { what, found: text.to_owned(), allowed })
    }
}

/// Finds the columns, and whether the first row is a header.
fn places(first: &ByteRecord, options: &CsvOptions) -> Result<(Places, bool), Problem> {
    let names: Vec<String> =
        first.iter().map(|name| String::from_utf8_lossy(name).trim().to_lowercase()).collect();
    let usual = |usual: &[&str]| names.iter().position(|name| usual.contains(&name.as_str()));
    let by_name = [&options.key, &options.size, &options.time]
        .into_iter()
        .any(|column| matches!(column, Some(Column::Name(_))));
    let is_header = options.header.unwrap_or_else(|| by_name || usual(KEY_NAMES).is_some());
    let place = |column: &Option<Column>, usual_names: &[&str]| match column {
        Some(Column::Index(index)) => Ok(Some(index - 1)),
        Some(Column::Name(name)) => {
            let found = is_header.then(|| names.iter().position(|found| *found == name.to_lowercase()));
            found.flatten().map(Some).ok_or_else(|| Problem::UnknownColumn {
                column: name.clone(),
                known: if is_header {
                    format!("the header has {}", listed(&names))
                } else {
                    "a name needs a header".to_owned()
                },
            })
        }
        None if is_header => Ok(usual(usual_names)),
        None => Ok(None),
    };
    let (key, size, time) = (
        place(&options.key, KEY_NAMES)?,
        place(&options.size, SIZE_NAMES)?,
        place(&options.time, TIME_NAMES)?,
    );
    let key = key.or((first.len() == 1).then_some(0)).ok_or_else(|| Problem::UnknownColumn {
        column: "key".to_owned(),
        known: format!(
            "the first row has {}; choose the key's with --key-column, by name or counted from 1",
            listed(&names)
        ),
    })?;
    Ok((Places { key, size, time }, is_header))
}

/// As many names of columns as a line can have.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let mut text = names[..names.len().min(MOST)].join(", ").replace(char::is_control, "?");
    if names.len() > MOST {
        text.push_str(", …");
    }
    text
}

fn problem(error: csv::Error) -> Problem {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Problem::Io(error),
        other => Problem::Malformed { format: "csv", reason: format!("{other:?}") },
    }
}

impl Decode for Csv {
    fn advance(&mut self) -> Result<bool, Problem> {
        self.records += 1;
        if !std::mem::take(&mut self.pending)
            && !self.reader.read_byte_record(&mut self.row).map_err(problem)?
        {
            return Ok(false);
        }
        self.size_bytes = self.number(self.places.size, "size")?;
        self.time_seconds = self.number(self.places.time, "time")?;
        let key = str::from_utf8(self.field(self.places.key, "key")?).map_err(|_| Problem::NotUtf8)?;
        if key.trim().is_empty() { Err(Problem::EmptyKey) } else { Ok(true) }
    }

    fn current(&self) -> RawRequest<'_> {
        let key = self.row.get(self.places.key).and_then(|key| str::from_utf8(key).ok()).unwrap_or_default();
        let Self { size_bytes, time_seconds, .. } = *self;
        let key = TraceKey::of_text(key.trim());
        RawRequest { key, size_bytes, time_seconds, operation: Operation::Read }
    }

    fn position(&self) -> Position {
        let at = self.row.position();
        let (line, byte) = at.map_or((1, 0), |at| (at.line(), at.byte()));
        Position { record: self.records.max(1), line: Some(line), byte }
    }

    fn has_sizes(&self) -> bool {
        self.places.size.is_some()
    }

    fn has_times(&self) -> bool {
        self.places.time.is_some()
    }
}
