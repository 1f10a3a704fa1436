//! Bearer tokens: a file of them, and whether a request has one.
//!
//! A file has one token a line, `token` or `name: token`; empty lines and what begins with `#` count for nothing. A
//! token is what RFC 6750 allows, at least [`MIN_TOKEN_BYTES`] long. Only digests are kept. What a request brings is
//! digested too and compared with all of them in constant time, so neither the time it takes nor a core dump tells a
//! token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, header};
use ring::digest::{Digest, SHA256, digest};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::config::AuthConfig;
use crate::rotated::{Files, Rotated, SecretFile};

/// The shortest token that is accepted: what is shorter can be guessed.
pub const MIN_TOKEN_BYTES: usize = 16;

/// The longest one.
pub const MAX_TOKEN_BYTES: usize = 512;

/// The most tokens in a file.
pub const MAX_TOKENS: usize = 1000;

const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_NAME_BYTES: usize = 64;

/// Why a file of tokens cannot be used. Every message is one line that names the file; none quotes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokensError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// A line is not as it should be.
    #[error("{}:{line}: {what}", path.display())]
    BadLine {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file is, as a whole.
    #[error("{}: {what}", path.display())]
    BadFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It has no bearer token.
    NoToken,
    /// It has one that is not in the file.
    WrongToken,
}

/// Digests of tokens with their names.
pub struct TokenSet(Vec<(Digest, Arc<str>)>);

/// The tokens in force for a transport.
pub type Tokens = Rotated<AuthConfig>;

impl Files for AuthConfig {
    type Contents = SecretFile;
    type Value = TokenSet;
    type Error = TokensError;
    const WHAT: &'static str = "bearer tokens";

    fn read(&self) -> Result<SecretFile, TokensError> {
        let path = &self.tokens_file;
        // One byte more tells that there is more.
        SecretFile::read(path, MAX_FILE_BYTES + 1)
            .map_err(|error| TokensError::Unreadable { path: path.clone(), cause: error.to_string() })
    }

    fn load(&self, file: SecretFile) -> Result<TokenSet, TokensError> {
        let tokens = parse(&self.tokens_file, &file.bytes)?;
        file.warn_if_exposed(&self.tokens_file, "the bearer tokens");
        Ok(tokens)
    }

    fn path(&self) -> &Path {
        &self.tokens_file
    }

    fn reload_interval(&self) -> Duration {
        self.reload_interval
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<TokenSet, TokensError> {
    let bad_file = |what| TokensError::BadFile { path: path.to_owned(), what };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(bad_file("larger than 1 MiB, which no list of tokens is"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| bad_file("not UTF-8"))?;
    let mut tokens: Vec<(Digest, Arc<str>)> = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad_line = |what| TokensError::BadLine { path: path.to_owned(), line: number, what };
        let (name, token) = match line.split_once(':') {
            Some((name, token)) => (Some(name.trim()), token.trim()),
            None => (None, line),
        };
        if name.is_some_and(|name| !is_name(name)) {
            return Err(bad_line("a name has 1 to 64 letters, digits, '.', '_' or '-'"));
        }
        if !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len()) {
            return Err(bad_line("a token has 16 to 512 characters"));
        }
        if !is_token(token) {
            return Err(bad_line(
                "a token has letters, digits, '-', '.', '_', '~', '+' and '/', and may end in '='",
            ));
        }
        let digest = digest(&SHA256, token.as_bytes());
        if tokens.iter().any(|(other, _)| other.as_ref() == digest.as_ref()) {
            return Err(bad_line("the token stands there twice"));
        }
        if tokens.len() == MAX_TOKENS {
            return Err(bad_file("more than 1000 tokens"));
        }
        tokens.push((digest, name.map_or_else(|| format!("line {number}").into(), Arc::from)));
    }
    if tokens.is_empty() { Err(bad_file("no token in it")) } else { Ok(TokenSet(tokens)) }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// `b64token` of RFC 6750, section 2.1.
fn is_token(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

impl TokenSet {
    /// The name of a token. Takes as long for every token of a length, known or not.
    fn name_of(&self, token: &[u8]) -> Option<&Arc<str>> {
        let presented = digest(&SHA256, token);
        let mut found = u32::MAX;
        for (index, (known, _)) in (0..).zip(&self.0) {
            found.conditional_assign(&index, known.as_ref().ct_eq(presented.as_ref()));
        }
        self.0.get(usize::try_from(found).ok()?).map(|(_, name)| name)
    }
}

impl Tokens {
    /// The name of the token that a request brings, or why it is not to be answered.
    pub fn check(&self, headers: &HeaderMap) -> Result<Arc<str>, Denied> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let token = values.next().and_then(|value| bearer(value.as_bytes())).ok_or(Denied::NoToken)?;
        // Of two, somebody in front of us may have looked at the other one.
        if values.next().is_some() {
            return Err(Denied::WrongToken);
        }
        self.current().name_of(token).cloned().ok_or(Denied::WrongToken)
    }
}

/// The token of a header such as `Bearer abc`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http::HeaderValue;

    use super::*;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "fedcba9876543210-._~+/==";

    fn tokens(text: &str) -> Result<TokenSet, TokensError> {
        parse(Path::new("tokens"), text.as_bytes())
    }

    #[test]
    fn a_file_has_tokens_with_and_without_names() {
        let tokens = tokens(&format!("# ours\n\n  {ONE}\r\nbilling : {TWO}\n")).unwrap();
        let name = |token: &str| tokens.name_of(token.as_bytes()).map(|name| &**name);
        assert_eq!(name(ONE), Some("line 3"));
        assert_eq!(name(TWO), Some("billing"));
        for wrong in
            ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "billing", "billing : fedc"]
        {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_bad_file_is_told_by_line_and_never_quoted() {
        let many = (0..=MAX_TOKENS).fold(String::new(), |text, n| text + &format!("secret-secret-{n:04}\n"));
        let long = "s".repeat(MAX_TOKEN_BYTES + 1);
        for (text, says) in [
            ("", "tokens: no token in it"),
            ("# none\n", "tokens: no token in it"),
            ("secret-too-shor", "tokens:1: a token has 16 to 512 characters"),
            (&*long, "tokens:1: a token has 16"),
            ("# x\n\nsecret with blanks", "tokens:3: a token has letters"),
            ("secret=secret=secret", "tokens:1: a token has letters"),
            ("sécret-sécret-sécret", "tokens:1: a token has letters"),
            ("a b: secret-secret-secret", "tokens:1: a name has"),
            (": secret-secret-secret", "tokens:1: a name has"),
            ("a: secret-secret-secret\nb: secret-secret-secret", "tokens:2: the token stands there twice"),
            (&*many, "tokens: more than 1000"),
            (&*"secret-secret-secret\n".repeat(60_000), "tokens: larger than 1 MiB"),
        ] {
            let error = tokens(text).map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error:?} does not say {says:?}");
            assert!(!error.contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn a_request_needs_one_bearer_token_that_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let tokens_file = directory.path().join("tokens");
        fs::write(&tokens_file, ONE).unwrap();
        let config = AuthConfig { tokens_file: tokens_file.clone(), reload_interval: Duration::from_secs(1) };
        let tokens = Tokens::load(&config).unwrap();
        let check = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            tokens.check(&headers).map(|name| name.to_string())
        };
        let good = format!("Bearer {ONE}");
        for value in [&*good, &format!("bearer {ONE}"), &format!("BEARER   {ONE} ")] {
            assert_eq!(check(&[value]).as_deref(), Ok("line 1"), "{value}");
        }
        for values in [&[][..], &[""], &["Basic YTpi"], &[ONE], &["Bearer"]] {
            assert_eq!(check(values), Err(Denied::NoToken), "{values:?}");
        }
        for values in [&["Bearer "][..], &[&format!("Bearer {TWO}")], &[&good, &good], &[&good, "Basic YTpi"]]
        {
            assert_eq!(check(values), Err(Denied::WrongToken), "{values:?}");
        }

        fs::write(&tokens_file, TWO).unwrap();
        assert!(check(&[&good]).is_ok(), "nobody has looked");
        tokens.reload_if_changed();
        assert_eq!(check(&[&good]), Err(Denied::WrongToken));
        fs::write(&tokens_file, "short").unwrap();
        tokens.reload_if_changed();
        assert!(check(&[&format!("Bearer {TWO}")]).is_ok());
        assert_eq!((tokens.reloads_total(), tokens.reload_failures_total()), (1, 1));
    }
}
