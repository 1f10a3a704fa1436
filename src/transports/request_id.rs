//! The id that follows a request from the caller through the log and back.
//!
//! Every response of every transport carries one. A caller's id is taken over only where it can
//! neither break a log line nor bloat it; otherwise the server makes one.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::refused::RefusedRequests;

/// The header, and for gRPC the metadata key.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from a caller.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// The id of a request: the caller's where it is 1 to [`MAX_REQUEST_ID_BYTES`] visible ASCII
/// characters (no blanks), else a new one of 32 hex digits. One that is there and not taken over is counted in `refused`.
///
/// The value returned always passes [`HeaderValue::to_str`].
#[must_use]
pub fn request_id(headers: &HeaderMap, refused: &RefusedRequests) -> HeaderValue {
    match headers.get(&REQUEST_ID) {
        Some(id) if is_acceptable(id.as_bytes()) => return id.clone(),
        Some(_) => refused.count_request_id(),
        None => {}
    }
    new_request_id()
}

fn is_acceptable(id: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// Unique, not secret: it only tells requests apart.
fn new_request_id() -> HeaderValue {
    let mut digits = [0; 32];
    data_encoding::HEXLOWER.encode_mut(&fastrand::u128(..).to_be_bytes(), &mut digits);
    let mut id = HeaderValue::from_bytes(&digits).expect("hex digits are valid in a header");
    // No id comes twice: HTTP/2 is to send it without a place in its compression table, which it would only churn.
    id.set_sensitive(true);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(id: &[u8], refused: &RefusedRequests) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(id).expect("can be sent"));
        request_id(&headers, refused)
    }

    #[track_caller]
    fn assert_made_here(id: &HeaderValue) {
        let id = id.to_str().expect("text");
        assert_eq!(id.len(), 32, "{id}");
        assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    }

    #[test]
    fn a_sound_id_is_taken_over() {
        let refused = RefusedRequests::default();
        for id in ["a", "7f3c-11", "!~[]{}\"\\<>", &"x".repeat(MAX_REQUEST_ID_BYTES)] {
            assert_eq!(answer_to(id.as_bytes(), &refused), id);
        }
        assert_eq!(refused.request_ids(), 0);
    }

    #[test]
    fn a_hostile_id_is_replaced_and_counted() {
        let refused = RefusedRequests::default();
        let too_long = "x".repeat(MAX_REQUEST_ID_BYTES + 1);
        for id in ["", " ", "two words", "tab\there", "naïve", "\u{1f980}", &too_long] {
            assert_made_here(&answer_to(id.as_bytes(), &refused));
        }
        assert_made_here(&answer_to(b"\xff\xfe", &refused));
        assert_eq!(refused.request_ids(), 8);
    }

    #[test]
    fn a_missing_id_is_made_and_differs_from_the_last() {
        let refused = RefusedRequests::default();
        let [first, second] = [(); 2].map(|()| request_id(&HeaderMap::new(), &refused));
        assert_made_here(&first);
        assert_ne!(first, second);
        assert_eq!(refused.request_ids(), 0);
    }
}
