//! Axes: from values to places, with ticks at numbers that people like.

use crate::Mode;

/// A tick's value and its label.
pub(super) type Tick = (f64, String);

/// One axis: a range, linear or logarithmic, and its ticks.
pub(super) struct Axis {
    min: f64,
    max: f64,
    log: bool,
    pub(super) ticks: Vec<Tick>,
}

/// Above this ratio of the largest to the smallest capacity the axis is logarithmic.
const LOG_FROM: f64 = 6.0;

impl Axis {
    /// An axis for capacities.
    pub(super) fn of_capacities(smallest: u64, largest: u64, mode: Mode, max_ticks: usize) -> Self {
        let (low, high) = (float(smallest), float(largest));
        let log = high > low * LOG_FROM;
        let (min, max) = match (log, smallest == largest) {
            (true, _) => (low, high),
            (false, false) => (low - (high - low) * 0.03, high),
            (false, true) => (low * 0.9, high * 1.1),
        };
        let values =
            if log { log_ticks(min, max, mode, max_ticks) } else { linear_ticks(min, max, mode, max_ticks) };
        let ticks = values.into_iter().map(|value| (value, short_capacity(value, mode))).collect();
        Self { min, max, log, ticks }
    }

    /// An axis for miss ratios, beginning at 0 where that does not flatten all the differences.
    pub(super) fn of_ratios(smallest: f64, largest: f64) -> Self {
        let range = largest - smallest;
        let flat = smallest > 0.3 && range < smallest * 0.5;
        let low = if flat { (smallest - range * 0.15).max(0.0) } else { 0.0 };
        let step = nice_step(((largest - low) / 5.0).max(0.0002));
        let mut min = ((low / step).floor() * step).max(0.0);
        let mut max = largest + (largest - min) * 0.04;
        if max < min + step / 2.0 {
            // One value alone: make room where ratios can be.
            if min >= step { min -= step } else { max = min + step }
        }
        let decimals = decimals_of(step);
        let ticks = steps(min, max, step).map(|value| (value, format!("{value:.decimals$}"))).collect();
        Self { min, max, log: false, ticks }
    }

    pub(super) const fn is_log(&self) -> bool {
        self.log
    }

    /// Where a value lies, from 0 at the axis's beginning to 1 at its end.
    pub(super) fn position(&self, value: f64) -> f64 {
        if self.log {
            (value.max(f64::MIN_POSITIVE).ln() - self.min.ln()) / (self.max.ln() - self.min.ln())
        } else {
            (value - self.min) / (self.max - self.min)
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a place on a screen")]
pub(super) const fn float(value: u64) -> f64 {
    value as f64
}

fn steps(min: f64, max: f64, step: f64) -> impl Iterator<Item = f64> {
    // Adding 0 turns a -0, which would be shown, into 0.
    let first = (min / step - 1e-9).ceil() + 0.0;
    std::iter::successors(Some(first), |n| Some(n + 1.0))
        .map(move |n| n * step)
        .take_while(move |v| *v <= max + step * 1e-9)
}

fn linear_ticks(min: f64, max: f64, mode: Mode, max_ticks: usize) -> Vec<f64> {
    let rough = (max - min) / float(max_ticks as u64);
    let step = match mode {
        Mode::Items => nice_step(rough).max(1.0),
        Mode::Bytes => rough.max(1.0).log2().ceil().exp2(),
    };
    steps(min, max, step).collect()
}

fn log_ticks(min: f64, max: f64, mode: Mode, max_ticks: usize) -> Vec<f64> {
    let inside = |value: &f64| *value >= min * 0.999 && *value <= max * 1.001;
    let base: f64 = match mode {
        Mode::Items => 10.0,
        Mode::Bytes => 2.0,
    };
    let exponents = || {
        std::iter::successors(Some(min.log(base).floor()), |e| Some(e + 1.0))
            .take_while(|e| base.powf(*e) <= max)
    };
    let candidates: Vec<Vec<f64>> = match mode {
        Mode::Items => [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]]
            .map(|factors| {
                exponents().flat_map(|e| factors.iter().map(move |f| f * 10_f64.powf(e))).collect()
            })
            .into(),
        Mode::Bytes => Vec::new(),
    };
    let fitting = candidates
        .into_iter()
        .map(|values| values.into_iter().filter(inside).collect::<Vec<_>>())
        .find(|values| values.len() <= max_ticks);
    // Every exponent, every second one, and so on; of all the exponents at most one is a multiple of 4096.
    fitting.unwrap_or_else(|| {
        let every_nth = |nth: u32| -> Vec<f64> {
            let chosen = exponents().filter(|exponent| exponent.rem_euclid(f64::from(nth)) < 0.5);
            chosen.map(|exponent| base.powf(exponent)).filter(inside).collect()
        };
        (1..4096).map(every_nth).find(|values| values.len() <= max_ticks).unwrap_or_default()
    })
}

/// The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below the rough one.
fn nice_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(power * 10.0)
}

fn decimals_of(step: f64) -> usize {
    (0..6)
        .find(|decimals| {
            let scaled = step * 10_f64.powi(i32::try_from(*decimals).unwrap_or(0));
            (scaled - scaled.round()).abs() < 1e-6
        })
        .unwrap_or(6)
}

/// A capacity for a tick: "20k", "1.5M", "64 KiB".
fn short_capacity(value: f64, mode: Mode) -> String {
    let (units, base): (&[&str], f64) = match mode {
        Mode::Items => (&["", "k", "M", "G", "T"], 1000.0),
        Mode::Bytes => (&[" B", " KiB", " MiB", " GiB", " TiB", " PiB"], 1024.0),
    };
    let mut scaled = value;
    let mut unit = 0;
    while scaled >= base * 0.9999 && unit + 1 < units.len() {
        scaled /= base;
        unit += 1;
    }
    let text = if scaled >= 100.0 { format!("{scaled:.0}") } else { format!("{scaled:.2}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// A capacity as people read it: "8,646" objects, "1.25 MiB".
#[must_use]
pub fn full_capacity(value: u64, mode: Mode) -> String {
    match mode {
        Mode::Items => grouped(value),
        Mode::Bytes => short_capacity(float(value), mode),
    }
}

/// A count with thousands separators.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let cases: [(u64, u64, Mode, &[&str]); 6] = [
            (100, 400, Mode::Items, &["100", "150", "200", "250", "300", "350", "400"]),
            (865, 86_466, Mode::Items, &["1k", "2k", "5k", "10k", "20k", "50k"]),
            (10, 10_000_000, Mode::Items, &["10", "100", "1k", "10k", "100k", "1M", "10M"]),
            (1 << 20, 1 << 24, Mode::Bytes, &["1 MiB", "2 MiB", "4 MiB", "8 MiB", "16 MiB"]),
            (
                1 << 10,
                1 << 30,
                Mode::Bytes,
                &["4 KiB", "32 KiB", "256 KiB", "2 MiB", "16 MiB", "128 MiB", "1 GiB"],
            ),
            (500, 500, Mode::Items, &["460", "480", "500", "520", "540"]),
        ];
        for (low, high, mode, expected) in cases {
            let axis = Axis::of_capacities(low, high, mode, 8);
            let labels: Vec<_> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
            assert_eq!(labels, expected, "{low} to {high}");
            assert!(axis.ticks.iter().all(|(value, _)| (-0.001..=1.001).contains(&axis.position(*value))));
        }
    }

    #[test]
    fn ratios_begin_at_zero_unless_that_hides_the_differences() {
        let cases: [(f64, f64, &[&str]); 4] = [
            (0.05, 0.93, &["0.0", "0.2", "0.4", "0.6", "0.8"]),
            (0.8, 0.9, &["0.775", "0.800", "0.825", "0.850", "0.875", "0.900"]),
            (0.0, 0.0, &["0.0000", "0.0002"]),
            (1.0, 1.0, &["0.9998", "1.0000"]),
        ];
        for (low, high, expected) in cases {
            let axis = Axis::of_ratios(low, high);
            let labels: Vec<_> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
            assert_eq!(labels, expected, "{low} to {high}");
        }
    }

    #[test]
    fn capacities_are_told_in_full() {
        assert_eq!(full_capacity(1_234_567, Mode::Items), "1,234,567");
        assert_eq!(full_capacity(1_310_720, Mode::Bytes), "1.25 MiB");
        assert_eq!(full_capacity(999, Mode::Bytes), "999 B");
    }
}
