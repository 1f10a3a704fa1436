//! Durations: "250ms", "10s", "5m", "1h".

use std::time::Duration;

use super::document::Raw;
use super::format::Format;

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A hundred years: "never" for any purpose here, and no clock arithmetic overflows.
const LONGEST: Duration = Duration::from_secs(876_000 * 3600);

/// A span of time of at least `min`.
pub(super) struct Span {
    pub(super) min: Duration,
}

impl Span {
    pub(super) const MILLISECOND: Self = Self { min: Duration::from_millis(1) };
    pub(super) const SECOND: Self = Self { min: Duration::from_secs(1) };
    pub(super) const ZERO: Self = Self { min: Duration::ZERO };
}

impl Format for Span {
    type Value = Duration;

    fn parse(&self, raw: &Raw) -> Option<Duration> {
        let Raw::Text(text) = raw else { return None };
        let duration = parse(text)?;
        (self.min..=LONGEST).contains(&duration).then_some(duration)
    }

    fn allowed(&self) -> String {
        format!(
            "a duration such as \"250ms\", \"10s\" or \"5m\", from {} to {}",
            show(self.min),
            show(LONGEST)
        )
    }

    fn render(&self, duration: &Duration) -> String {
        format!("{:?}", show(*duration))
    }
}

fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*factor)?))
}

fn show(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    // "90s" reads better than "1.5m", "30s" better than "30000ms".
    let (name, factor) =
        UNITS.iter().find(|(_, factor)| milliseconds.is_multiple_of(*factor)).unwrap_or(&UNITS[3]);
    format!("{}{name}", milliseconds / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_exactly_or_not_at_all() {
        let cases = [
            ("250ms", Some(250)),
            ("10s", Some(10_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("18446744073709551615ms", Some(u64::MAX)),
            ("18446744073709551615s", None),
            ("10", None),
            ("10 s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1d", None),
            ("s", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn a_shown_duration_reads_back_as_itself() {
        for (milliseconds, text) in
            [(0, "0s"), (1, "1ms"), (1500, "1500ms"), (90_000, "90s"), (120_000, "2m"), (7_200_000, "2h")]
        {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(show(duration), text);
            assert_eq!(parse(text), Some(duration));
        }
    }

    #[test]
    fn what_no_clock_can_add_is_refused() {
        assert_eq!(Span::ZERO.parse(&Raw::Text("876000h".into())), Some(LONGEST));
        assert_eq!(Span::ZERO.parse(&Raw::Text("876001h".into())), None);
    }
}
