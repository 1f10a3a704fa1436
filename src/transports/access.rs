//! What a listener has for whom: the parts that it serves, and whether a request for one needs a bearer token.

use std::sync::Arc;
use std::time::Duration;

use http::Request;

use super::listener::ConnectInfo;
use super::refused::{RefusedRequests, RequestRefusal};
pub use crate::auth::Denied;
use crate::auth::Tokens;
use crate::config::Part;
use crate::telemetry::throttle::Throttle;

/// The least time between two log lines about requests without a good token.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Who may ask for what. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    serve: Arc<[Part]>,
    tokens: Option<Arc<Tokens>>,
    refused: Arc<RefusedRequests>,
    log: Arc<Throttle>,
}

impl Access {
    /// Everybody may ask for these parts, where there are `tokens` only those who have one, but for probes.
    /// `refused` is where is counted what came to nothing.
    #[must_use]
    pub fn new(serve: &[Part], tokens: Option<Arc<Tokens>>, refused: Arc<RefusedRequests>) -> Self {
        Self { serve: serve.into(), tokens, refused, log: Arc::new(Throttle::new(LOG_INTERVAL)) }
    }

    /// Whether a part is there at all.
    #[must_use]
    pub fn serves(&self, part: Part) -> bool {
        self.serve.contains(&part)
    }

    /// Whether all but probes needs a token.
    #[must_use]
    pub const fn needs_token(&self) -> bool {
        self.tokens.is_some()
    }

    /// Where is counted what came to nothing.
    #[must_use]
    pub const fn refused(&self) -> &Arc<RefusedRequests> {
        &self.refused
    }

    /// Whether a request may be answered, by its token. What may not is counted and logged; the span that this is called in
    /// has the request's id.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Denied> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        match tokens.check(request.headers()) {
            Ok(token) => {
                tracing::debug!(%token, "token accepted");
                Ok(())
            }
            Err(denied) => {
                let reason = match denied {
                    Denied::NoToken => RequestRefusal::NoToken,
                    Denied::WrongToken => RequestRefusal::WrongToken,
                };
                self.refused.count(reason);
                if let Some(not_logged) = self.log.pass() {
                    let info = request.extensions().get::<ConnectInfo>();
                    let peer = info.map(|info| tracing::field::debug(info.peer));
                    let reason = reason.name();
                    tracing::info!(reason, peer, not_logged, "request refused for want of a token");
                }
                Err(denied)
            }
        }
    }
}
