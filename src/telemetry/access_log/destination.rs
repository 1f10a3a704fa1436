//! Where lines go: a file that may be moved away, fill its disk or come back, or standard output.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::LogDestination;

/// Its owner writes, its group may read: keys are told, if only by their hashes.
const MODE: u32 = 0o640;

pub(super) enum Destination {
    StandardOutput(io::Stdout),
    File(LogFile),
}

/// A file, and the path that it was opened by.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and inode.
    identity: (u64, u64),
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl fmt::Display for LogDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandardOutput => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Destination {
    pub(super) fn open(destination: &LogDestination) -> io::Result<Self> {
        Ok(match destination {
            LogDestination::StandardOutput => Self::StandardOutput(io::stdout()),
            LogDestination::File(path) => Self::File(LogFile::open(path)?),
        })
    }

    /// Writes whole lines and takes them out of the buffer, which holds nothing else. After an error what is left in it is
    /// still to be written.
    pub(super) fn write(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        let (written, outcome) = match self {
            Self::StandardOutput(output) => {
                let (written, outcome) = write_some(output, lines);
                (written, outcome.and_then(|()| output.flush()))
            }
            Self::File(LogFile { file, .. }) => {
                let (written, outcome) = write_some(file, lines);
                let whole = whole_lines(&lines[..written]);
                // Half a line would make the file unreadable from there on. What cannot be cut stays, and is not written again.
                let is_cut = whole < written && cut_off(file, written - whole).is_ok();
                (if is_cut { whole } else { written }, outcome)
            }
        };
        lines.drain(..written);
        outcome
    }

    /// Opens the file again. Where that fails, the old one stays in use.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Self::File(current) = self {
            *current = LogFile::open(&current.path)?;
        }
        Ok(())
    }

    /// Whether another file, or none, is now where this one was opened.
    pub(super) fn was_moved(&self) -> bool {
        match self {
            Self::StandardOutput(_) => false,
            Self::File(LogFile { path, identity: opened, .. }) => {
                fs::metadata(path).map_or(true, |now| identity(&now) != *opened)
            }
        }
    }
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let refused = |cause: &str| Err(io::Error::new(ErrorKind::InvalidInput, cause));
        if let Ok(metadata) = fs::metadata(path) {
            let kind = metadata.file_type();
            // Opening a pipe would wait for its reader.
            if kind.is_fifo() || kind.is_socket() || kind.is_dir() {
                return refused("it is no file");
            }
        } else if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
            && !parent.exists()
        {
            return refused(&format!("the directory {} does not exist", parent.display()));
        }
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        let identity = identity(&file.metadata()?);
        Ok(Self { path: path.to_owned(), file, identity })
    }
}

/// Writes as much as can be written; how much that was.
fn write_some(output: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match output.write(&bytes[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// How many bytes of these are whole lines.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

fn cut_off(file: &File, bytes: usize) -> io::Result<()> {
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(bytes as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full {
        room: usize,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room).min(3);
            self.room -= taken;
            if taken == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_does_not_fit_is_left_and_lines_stay_whole() {
        let lines = b"one\ntwo\nthree\n";
        for (room, written, whole) in [(0, 0, 0), (3, 3, 0), (4, 4, 4), (9, 9, 8), (14, 14, 14)] {
            let (found, outcome) = write_some(&mut Full { room }, lines);
            assert_eq!((found, outcome.is_ok()), (written, room >= lines.len()), "{room}");
            assert_eq!(whole_lines(&lines[..found]), whole, "{room}");
        }
    }

    #[test]
    fn half_a_line_at_the_end_of_a_file_is_cut_off() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        fs::write(&path, "one\ntw").expect("written");
        let file = OpenOptions::new().append(true).open(&path).expect("there");
        cut_off(&file, 2).expect("cut");
        assert_eq!(fs::read_to_string(&path).expect("there"), "one\n");
    }

    #[test]
    fn what_is_no_file_is_refused_with_the_reason() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        let nowhere = directory.path().join("no/such/log");
        for (path, cause) in [
            (directory.path(), "it is no file"),
            (socket.as_path(), "it is no file"),
            (nowhere.as_path(), "/no/such does not exist"),
        ] {
            let told = LogFile::open(path).err().expect("refused").to_string();
            assert!(told.ends_with(cause), "{told}");
        }
    }
}
