//! What is said of PEM files that cannot be read.

use rustls_pki_types::pem::Error;

/// What is wrong with a PEM file, in words of our own: the library's quote lines, of which one may be a whole key.
pub(crate) fn damage(error: &Error) -> String {
    match error {
        Error::MissingSectionEnd { .. } => "a PEM block has no end",
        Error::IllegalSectionStart { .. } => {
            "a line that begins a PEM block does not end as such a line does"
        }
        Error::Base64Decode(_) => "a PEM block is not base64",
        _ => "it is not PEM",
    }
    .to_owned()
}
