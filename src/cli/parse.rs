//! Durations and sizes as people write them.

use std::time::Duration;

/// "250ms", "5s", "10m", "1h30m", or a bare number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration such as 250ms, 5s, 10m or 1h30m".to_owned();
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let scale_ms = match &rest[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        rest = &rest[unit..];
        let part = number.checked_mul(scale_ms).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// A duration that is not zero and that gRPC can express.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(99_999_999);
    match duration(text)? {
        Duration::ZERO => Err("a timeout is longer than zero".to_owned()),
        timeout if timeout > LONGEST => Err("a timeout is at most 99999999s".to_owned()),
        timeout => Ok(timeout),
    }
}

/// A time to live in whole seconds: an integer (zero and below: never expires), or a duration.
pub(super) fn ttl_seconds(text: &str) -> Result<i32, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let wrong = |_| "expected whole seconds such as 60, 90s, 10m or 1h30m, or 0 for ever".to_owned();
    let ttl = duration(text).map_err(wrong)?;
    if ttl.subsec_nanos() != 0 {
        return Err("a ttl is a whole number of seconds, such as 1s or 90".to_owned());
    }
    i32::try_from(ttl.as_secs()).map_err(|_| format!("a ttl is at most {} seconds", i32::MAX))
}

/// "100", "100B", "4KiB", "1MiB", "1GiB".
pub(super) fn size_bytes(text: &str) -> Result<usize, String> {
    let wrong = || "expected a size such as 100, 100B, 4KiB or 1MiB".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..digits].parse().map_err(|_| wrong())?;
    let shift = match text[digits..].trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_and_without_units() {
        for (text, milliseconds) in
            [("250ms", 250), ("5s", 5_000), ("7", 7_000), ("1h30m", 5_400_000), ("1d", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "5x", "5 s", "-5s", "1.5s", "5s3", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(timeout("0").is_err());
        assert!(timeout("100000000s").is_err());
    }

    #[test]
    fn a_ttl_is_whole_seconds_within_the_range_of_the_api() {
        for (text, seconds) in [("60", 60), ("-1", -1), ("10m", 600), ("2147483647", i32::MAX)] {
            assert_eq!(ttl_seconds(text), Ok(seconds), "{text}");
        }
        for text in ["1500ms", "2147483648", "99999d", "soon"] {
            let refusal = ttl_seconds(text).expect_err(text);
            assert!(!refusal.contains("ms"), "{refusal} would be refused, too");
        }
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [("100", 100), ("100B", 100), ("4KiB", 4096), ("1 MiB", 1 << 20), ("0", 0)] {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "1XB", "-1", "1.5KiB", "99999999999999999999", "99999999999999GiB"] {
            assert!(size_bytes(text).is_err(), "{text}");
        }
    }
}
