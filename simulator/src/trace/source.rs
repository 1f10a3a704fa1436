//! Where a trace's bytes come from: a file or standard input, plain or compressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Decompressed bytes.
pub(super) type Input = Box<dyn BufRead + Send>;

const BUFFER_BYTES: usize = 128 * 1024;
/// As much as a format is told by.
const START_BYTES: usize = 4096;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Whether a path stands for standard input.
#[must_use]
pub fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Opens a file, or standard input for `-`. `consumed` counts the bytes read, compressed or not.
pub(super) fn open(path: &Path, consumed: Arc<AtomicU64>) -> io::Result<Input> {
    let raw: Box<dyn Read + Send> =
        if is_standard_input(path) { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    unpacked(path, raw, consumed)
}

/// The bytes of a file of this name, unpacked where they are packed. `consumed` counts them as they are read.
pub(super) fn unpacked(
    path: &Path,
    raw: Box<dyn Read + Send>,
    consumed: Arc<AtomicU64>,
) -> io::Result<Input> {
    let raw = Filling::new(Counting { raw, consumed });
    let mut file = BufReader::with_capacity(BUFFER_BYTES, raw);
    let named = |extension| path.extension().is_some_and(|found| found == extension);
    let start = file.fill_buf()?;
    if named("zst") || start.starts_with(&ZSTD_MAGIC) {
        let mut decoder = zstd::Decoder::with_buffer(file)?;
        // Archives packed with --long need more than the default window.
        decoder.window_log_max(31)?;
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, Filling::new(decoder))));
    }
    if named("gz") || start.starts_with(&GZIP_MAGIC) {
        let decoder = Filling::new(flate2::bufread::MultiGzDecoder::new(file));
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)));
    }
    Ok(Box::new(file))
}

/// Hands out enough at first to tell a format by, however little at a time a pipe yields.
struct Filling<R> {
    source: R,
    is_at_start: bool,
    /// What went wrong after a part of the start, told when the rest is asked for.
    failure: Option<io::Error>,
}

impl<R> Filling<R> {
    const fn new(source: R) -> Self {
        Self { source, is_at_start: true, failure: None }
    }
}

impl<R: Read> Read for Filling<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::take(&mut self.is_at_start) {
            return self.failure.take().map_or_else(|| self.source.read(buffer), Err);
        }
        let mut filled = 0;
        while filled < buffer.len().min(START_BYTES) {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        Ok(filled)
    }
}

struct Counting {
    raw: Box<dyn Read + Send>,
    consumed: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.raw.read(buffer)?;
        self.consumed.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
