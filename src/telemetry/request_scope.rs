//! Which request this thread is working on, for what wants to name it far from where its headers are read.
//!
//! A transport enters the scope whenever it polls a request's handler, and only where somebody asked for it: see
//! [`Operations::wants_request_id`](super::operations::Operations::wants_request_id).

use std::cell::RefCell;

use http::HeaderValue;

thread_local! {
    static REQUEST_ID: RefCell<Option<HeaderValue>> = const { RefCell::new(None) };
}

/// The scope ends when it is dropped. It belongs to this thread.
#[must_use]
pub struct RequestScope {
    outer: Option<HeaderValue>,
    /// Not to be sent to another thread.
    _thread: std::marker::PhantomData<*const ()>,
}

impl RequestScope {
    /// From now on this thread works on the request of this id.
    pub fn enter(request_id: HeaderValue) -> Self {
        let outer = REQUEST_ID.replace(Some(request_id));
        Self { outer, _thread: std::marker::PhantomData }
    }
}

impl Drop for RequestScope {
    fn drop(&mut self) {
        REQUEST_ID.set(self.outer.take());
    }
}

/// The id of the request that this thread is working on, where that is known.
#[must_use]
pub fn request_id() -> Option<HeaderValue> {
    REQUEST_ID.with_borrow(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_its_request_until_it_ends() {
        let (outer, inner) = (HeaderValue::from_static("outer"), HeaderValue::from_static("inner"));
        assert_eq!(request_id(), None);
        {
            let _outer = RequestScope::enter(outer.clone());
            {
                let _inner = RequestScope::enter(inner.clone());
                assert_eq!(request_id(), Some(inner));
                assert_eq!(std::thread::spawn(request_id).join().expect("runs"), None);
            }
            assert_eq!(request_id(), Some(outer));
        }
        assert_eq!(request_id(), None);
    }
}
