//! What decides who is let in: files of bearer tokens, certificates and keys in PEM, and names in client certificates against a list. Whatever they hold, it is
//! used or refused; a refusal is one line that names the file and quotes nothing of it; and nobody is let in but whom something naive would let in.
//!
//! The input: a letter, then parts with zero bytes between.
//! `t`: a file of tokens; what requests have in their header, a line each. `p`: certificates, a key, authorities, as files; and who is listed.
//! `n`: who is listed, a line each; names of a client, a line each, for a certificate. `d`: who is listed; a certificate (DER).
#![no_main]

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, process};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tiny_cache::auth::{Denied, Tokens};
use tiny_cache::config::{AuthConfig, ClientIdentity, TlsConfig};
use tiny_cache::tls::{Alpn, ServerTls, is_listed};

const INTERVAL: Duration = Duration::from_secs(10);

/// A file while it is needed.
struct Written(PathBuf);

impl Written {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = env::temp_dir().join(format!("fuzz-access-{}-{name}", process::id()));
        fs::write(&path, bytes).expect("there is room");
        Self(path)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// One line that names a file and quotes none.
fn check_refusal(error: &dyn std::error::Error, files: &[(&Path, &[u8])]) {
    let mut message = error.to_string();
    assert!(!message.chars().any(char::is_control), "one line: {message:?}");
    let is_named = files.iter().any(|(path, _)| message.contains(&path.display().to_string()));
    assert!(is_named, "it names a file: {message}");
    for (path, _) in files {
        message = message.replace(&path.display().to_string(), "FILE");
    }
    for word in files.iter().flat_map(|(_, bytes)| bytes.split(|byte| b" \t\r\n:".contains(byte))) {
        // No word of the messages is long and has a digit; of one without, an input can be made to have it.
        let is_telling = word.len() >= 16 && word.iter().any(u8::is_ascii_digit);
        let is_quoted = is_telling && message.as_bytes().windows(word.len()).any(|part| part == word);
        assert!(!is_quoted, "it quotes nothing: {message}");
    }
}

/// Names and tokens of a file, read without care for speed; `None` where something is wrong with it.
fn naive_tokens(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let of = |more: &'static str| move |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    let mut found: Vec<(String, String)> = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parts: Vec<&str> = line.splitn(2, ':').map(str::trim).collect();
        let (name, token) = match parts[..] {
            [token] => (format!("line {}", index + 1), token),
            [name, token] if (1..=64).contains(&name.len()) && name.chars().all(of("._-")) => {
                (name.to_owned(), token)
            }
            _ => return None,
        };
        let padding = token.chars().rev().take_while(|&c| c == '=').count();
        let is_sound = (16..=512).contains(&token.len())
            && padding < token.len()
            && token[..token.len() - padding].chars().all(of("-._~+/"));
        if !is_sound || found.iter().any(|(_, other)| other == token) {
            return None;
        }
        found.push((name, token.to_owned()));
    }
    (1..=1000).contains(&found.len()).then_some(found)
}

fn tokens(input: &[u8]) {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    let (file, headers) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let written = Written::new("tokens", file);
    let naive = naive_tokens(file);
    let loaded = match Tokens::load(&AuthConfig { tokens_file: written.0.clone(), reload_interval: INTERVAL })
    {
        Ok(loaded) => loaded,
        Err(error) => {
            assert!(naive.is_none(), "nothing is wrong with it: {error}");
            return check_refusal(&error, &[(&written.0, file)]);
        }
    };
    let naive = naive.expect("something is wrong with it");
    let asked = |value: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).ok()?);
        Some(loaded.check(&headers))
    };
    for (name, token) in &naive {
        let found = asked(format!("Bearer {token}").as_bytes()).expect("a header can have it");
        assert_eq!(found.as_deref(), Ok(name.as_str()));
    }
    let mut all = HeaderMap::new();
    for value in headers.split(|&byte| byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            all.append(AUTHORIZATION, value);
        }
        let Some(found) = asked(value) else { continue };
        let text = String::from_utf8_lossy(value);
        let token = text.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("bearer ")).map(|_| &text[7..]);
        let known = naive
            .iter()
            .find(|(_, known)| token.is_some_and(|token| token.trim_matches([' ', '\t']) == known));
        match found {
            Ok(name) => assert_eq!(Some(&*name), known.map(|(name, _)| name.as_str()), "{text}"),
            Err(why) => {
                assert!(known.is_none() && (token.is_some() || why == Denied::NoToken), "{text}: {why:?}")
            }
        }
    }
    if all.len() > 1 {
        assert!(loaded.check(&all).is_err(), "of several headers somebody else may have read another");
    }
}

/// Who is listed, as a configuration has it: what names nobody is not in it.
fn listed(lines: &[u8]) -> Vec<(&str, ClientIdentity)> {
    let lines = lines.split(|&byte| byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
    lines.filter_map(|line| Some((line, ClientIdentity::parse(line)?))).collect()
}

fn identities(listed: &[(&str, ClientIdentity)]) -> Vec<ClientIdentity> {
    listed.iter().map(|(_, identity)| identity.clone()).collect()
}

fn pem(input: &[u8]) {
    let mut parts = input.splitn(4, |&byte| byte == 0);
    let [cert, key, authorities, clients] = [(); 4].map(|()| parts.next().unwrap_or_default());
    let files =
        [("cert", cert), ("key", key), ("ca", authorities)].map(|(name, bytes)| Written::new(name, bytes));
    let clients = identities(&listed(clients));
    let config = |with_clients: bool| TlsConfig {
        cert: files[0].0.clone(),
        key: files[1].0.clone(),
        client_ca: with_clients.then(|| files[2].0.clone()),
        clients: (with_clients && !clients.is_empty()).then(|| clients.clone()),
        reload_interval: INTERVAL,
    };
    let read = [cert, key, authorities];
    let all: Vec<(&Path, &[u8])> =
        files.iter().zip(read).map(|(file, bytes)| (file.0.as_path(), bytes)).collect();
    let plain = ServerTls::load(&config(false));
    let mutual = ServerTls::load(&config(true));
    for loaded in [&plain, &mutual] {
        match loaded {
            Ok(tls) => {
                assert_eq!(tls.server_config(Alpn::Http2).alpn_protocols, [b"h2"]);
                assert_eq!(tls.server_config(Alpn::Http1).alpn_protocols, [b"http/1.1"]);
            }
            Err(error) => check_refusal(error, &all),
        }
    }
    if let (Err(of_plain), Err(of_mutual)) = (&plain, &mutual) {
        assert_eq!(of_plain, of_mutual, "authorities are looked at last");
    }
    assert!(plain.is_ok() || mutual.is_err(), "authorities mend nothing");
    // Words before a block are no part of it.
    if plain.is_ok() {
        for (file, bytes) in files.iter().zip(read).take(2) {
            fs::write(&file.0, [b"CN = somebody\r\n\n", bytes].concat()).expect("there is room");
        }
        assert!(ServerTls::load(&config(false)).is_ok(), "words before a block");
    }
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).expect("inputs are short").to_be_bytes();
    [&[tag, 0x82], &length[..], &content].concat()
}

/// A certificate (RFC 5280) with these names in it, that nobody has signed.
fn certificate(names: &[(u8, &[u8])]) -> Vec<u8> {
    let algorithm = tlv(0x30, &[b"\x06\x03\x2b\x65\x70"]);
    let time = tlv(0x17, &[b"260101000000Z"]);
    let names: Vec<Vec<u8>> = names.iter().map(|(tag, name)| tlv(*tag, &[name])).collect();
    let names = tlv(0x04, &[&tlv(0x30, &names.iter().map(Vec::as_slice).collect::<Vec<_>>())]);
    let extensions = tlv(0xa3, &[&tlv(0x30, &[&tlv(0x30, &[b"\x06\x03\x55\x1d\x11", &names])])]);
    let public_key = tlv(0x30, &[&algorithm, &tlv(0x03, &[&[0; 33]])]);
    let nobody = tlv(0x30, &[]);
    let validity = tlv(0x30, &[&time, &time]);
    let head: &[u8] = b"\xa0\x03\x02\x01\x02\x02\x01\x01";
    let body = tlv(0x30, &[head, &algorithm, &nobody, &validity, &nobody, &public_key, &extensions]);
    tlv(0x30, &[&body, &algorithm, &tlv(0x03, &[&[0; 65]])])
}

/// Whether a line of the list means a name in a certificate (tag and text).
fn naive_means(line: &str, tag: u8, name: &str) -> bool {
    match (tag, line.split_at(4)) {
        (0x82, ("dns:", own)) => own.to_ascii_lowercase() == name.to_ascii_lowercase(),
        (0x86, ("uri:", own)) => match own.strip_suffix('*') {
            None => own == name,
            Some(tree) => {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                name.strip_prefix(tree).is_some_and(|rest| {
                    rest.split('/').all(|part| !["", ".", ".."].contains(&part) && part.chars().all(allowed))
                })
            }
        },
        _ => false,
    }
}

fn names(input: &[u8]) {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    let listed = listed(parts.next().unwrap_or_default());
    let client: Vec<(u8, &[u8])> = parts
        .next()
        .unwrap_or_default()
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let (kind, name) = line.split_at_checked(4)?;
            let tag = match kind {
                b"dns:" => 0x82,
                b"uri:" => 0x86,
                b"mail" => 0x81,
                _ => return None,
            };
            Some((tag, name))
        })
        .collect();
    let found = is_listed(&certificate(&client), &identities(&listed));
    let is_meant = |(tag, name): &(u8, &[u8])| {
        str::from_utf8(name).is_ok_and(|name| listed.iter().any(|(line, _)| naive_means(line, *tag, name)))
    };
    let expected = client.iter().any(is_meant);
    // A name that no certificate may have can spoil the others.
    let is_sound = client.iter().all(|(_, name)| name.is_ascii());
    assert!(expected || !found, "let in as {client:?}, listed are {listed:?}");
    assert!(found || !expected || !is_sound, "not let in as {client:?}, listed are {listed:?}");
}

fn der(input: &[u8]) {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    let listed = listed(parts.next().unwrap_or_default());
    let certificate = parts.next().unwrap_or_default();
    let lower = certificate.to_ascii_lowercase();
    assert!(!is_listed(certificate, &[]), "nobody is listed");
    let mut is_any = false;
    for (line, identity) in &listed {
        let found = is_listed(certificate, std::slice::from_ref(identity));
        let name = line[4..].trim_end_matches('*').to_ascii_lowercase();
        let stands_there = lower.windows(name.len()).any(|part| part == name.as_bytes());
        assert!(stands_there || !found, "the certificate has no {line}");
        is_any |= found;
    }
    assert_eq!(is_listed(certificate, &identities(&listed)), is_any, "a list is each of its lines");
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, input)) = data.split_first() else { return };
    match kind {
        b'p' => pem(input),
        b'n' => names(input),
        b'd' => der(input),
        _ => tokens(input),
    }
});
