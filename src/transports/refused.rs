//! What clients sent that never came to anything, by reason: counted where it is refused, by listeners and transports.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestRefusal {
    /// It did not begin, or its head did not end, within `handshake_timeout`.
    TooSlow,
    /// Its head is larger than `max_metadata`.
    HeadTooLarge,
    /// It is not of the protocol, or its message cannot be read.
    Malformed,
    /// Its message is larger than is allowed.
    MessageTooLarge,
    /// It asks for a method that is not there, or in an encoding that is not known.
    Unimplemented,
    /// Its caller's deadline passed before there was an answer.
    DeadlineExceeded,
    /// It needs a bearer token and has none.
    NoToken,
    /// Its bearer token is not known.
    WrongToken,
    /// It was not there, or not answered, within `request_timeout`.
    TimedOut,
    /// Its answer was not taken for as long again.
    NotTaken,
    /// It would have had to wait, and `max_in_flight` requests do.
    TooManyInFlight,
    /// Its connection had `max_concurrent_streams` already.
    TooManyStreams,
    /// Its message, its batch or its answer is more than is left of `max_in_flight_bytes`.
    TooManyBytes,
    /// It is compressed, and as many wait to be unpacked as may.
    TooManyCompressed,
    /// Answers that clients did not take were too many together, and its connection was closed for it.
    TooManyUntaken,
    /// It has more items than `max_batch`.
    BatchTooLarge,
    /// The namespace that it names cannot be one.
    InvalidNamespace,
    /// Its connection did what nobody does but to keep a server busy, and was closed for it.
    Flood,
}

impl RequestRefusal {
    /// Every reason there is.
    pub const ALL: [Self; 18] = [
        Self::TooSlow,
        Self::HeadTooLarge,
        Self::Malformed,
        Self::MessageTooLarge,
        Self::Unimplemented,
        Self::DeadlineExceeded,
        Self::NoToken,
        Self::WrongToken,
        Self::TimedOut,
        Self::NotTaken,
        Self::TooManyInFlight,
        Self::TooManyStreams,
        Self::TooManyBytes,
        Self::TooManyCompressed,
        Self::TooManyUntaken,
        Self::BatchTooLarge,
        Self::InvalidNamespace,
        Self::Flood,
    ];

    /// As metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooSlow => "too_slow",
            Self::HeadTooLarge => "head_too_large",
            Self::Malformed => "malformed",
            Self::MessageTooLarge => "message_too_large",
            Self::Unimplemented => "unimplemented",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::TimedOut => "timed_out",
            Self::NotTaken => "not_taken",
            Self::TooManyInFlight => "too_many_in_flight",
            Self::TooManyStreams => "too_many_streams",
            Self::TooManyBytes => "too_many_bytes",
            Self::TooManyCompressed => "too_many_compressed",
            Self::TooManyUntaken => "too_many_untaken",
            Self::BatchTooLarge => "batch_too_large",
            Self::InvalidNamespace => "invalid_namespace",
            Self::Flood => "flood",
        }
    }
}

/// A counter for each reason, and one for request ids.
#[derive(Debug, Default)]
pub struct RefusedRequests {
    requests: [AtomicU64; RequestRefusal::ALL.len()],
    request_ids: AtomicU64,
}

impl RefusedRequests {
    /// One more.
    pub fn count(&self, reason: RequestRefusal) {
        self.requests[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were for this reason.
    pub fn total(&self, reason: RequestRefusal) -> u64 {
        self.requests[reason as usize].load(Ordering::Relaxed)
    }

    /// One more id that was not taken over from its caller. Its request is answered like any other.
    pub fn count_request_id(&self) {
        self.request_ids.fetch_add(1, Ordering::Relaxed);
    }

    /// How many ids were not taken over.
    pub fn request_ids(&self) -> u64 {
        self.request_ids.load(Ordering::Relaxed)
    }
}
