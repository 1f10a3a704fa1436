//! A look at the frames that a connection writes: for the ends of its streams, and for what HTTP/2's own library refuses.

use std::convert::Infallible;
use std::sync::Arc;

use super::refusals::Refusals;
use super::scan::{Head, Scanner, Watcher};
use super::streams::Streams;
use crate::transports::refused::RefusedRequests;

/// The frames that a connection writes, as their bytes go.
pub(super) struct Written {
    scanner: Scanner,
    refusals: Refusals,
}

impl Written {
    /// Of a connection that begins. What is refused is counted in `refused`.
    pub(super) fn new(refused: Arc<RefusedRequests>) -> Self {
        Self { scanner: Scanner::before(0), refusals: Refusals::new(refused) }
    }

    /// Looks at bytes that are written, for refusals and for ends of `streams`.
    pub(super) fn pass(&mut self, bytes: &[u8], streams: &mut Streams) {
        let Self { scanner, refusals } = self;
        let Ok(()) = scanner.pass(bytes, &mut Watch { refusals, streams });
    }
}

struct Watch<'a> {
    refusals: &'a mut Refusals,
    streams: &'a mut Streams,
}

impl Watcher for Watch<'_> {
    type End = Infallible;

    fn wants(&self, head: &Head) -> usize {
        self.refusals.wants(head).max(Streams::wants(head))
    }

    fn frame(&mut self, head: &Head, content: &[u8]) -> Result<(), Infallible> {
        self.refusals.frame(head, content);
        self.streams.written(head, content);
        Ok(())
    }
}
