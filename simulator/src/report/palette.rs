//! What tells one line from another: colour, dashes and markers, so that no reader has to rely on
//! colour alone.
//!
//! The colours are those of Okabe and Ito ("Color Universal Design", 2008), darkened for a light
//! page where they were too faint for a thin line, and without their yellow. Six colours in three dash patterns make eighteen
//! lines that differ in at least one of them, and neighbours in the list differ in colour.

use std::fmt::Write as _;

pub(super) const PAPER: &str = "#ffffff";
pub(super) const INK: &str = "#1d2329";
pub(super) const MUTED: &str = "#5c6670";
pub(super) const RULE: &str = "#e3e7eb";
/// The region below the optimum, where no policy can be.
pub(super) const BEYOND: &str = "#eef1f4";

struct Colour {
    light: &'static str,
    dark: &'static str,
}

const COLOURS: [Colour; 6] = [
    Colour { light: "#0072b2", dark: "#5aa9e6" },
    Colour { light: "#d55e00", dark: "#f08a3c" },
    Colour { light: "#00875f", dark: "#2fc498" },
    Colour { light: "#b2457e", dark: "#e08fbc" },
    Colour { light: "#a87900", dark: "#e6b422" },
    Colour { light: "#5b4bb7", dark: "#a79bf0" },
];

const DASHES: [&str; 3] = ["", "7 3", "2 3"];

/// The shapes of markers; each is filled for the first dash pattern and hollow for the others.
const MARKERS: [Marker; 6] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Cross, Marker::Wedge];

/// A marker's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
    Wedge,
}

/// The look of one policy's line and bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    index: usize,
}

impl Look {
    /// The look of the n-th policy of a report.
    pub(super) const fn of(index: usize) -> Self {
        Self { index }
    }

    /// The class by which a style sheet recolours strokes and fills: `c0` to `c5`.
    pub(super) const fn class(self) -> usize {
        self.index % COLOURS.len()
    }

    pub(super) const fn colour(self) -> &'static str {
        COLOURS[self.class()].light
    }

    pub(super) const fn dashes(self) -> &'static str {
        DASHES[(self.index / COLOURS.len()) % DASHES.len()]
    }

    pub(super) const fn is_hollow(self) -> bool {
        self.index >= COLOURS.len()
    }

    /// Shifted by one for each round of colours, so that colour and shape do not repeat together.
    pub(super) const fn marker(self) -> Marker {
        MARKERS[(self.index + self.index / COLOURS.len()) % MARKERS.len()]
    }

    /// The marker as path data around a point.
    pub(super) fn marker_path(self, x: f64, y: f64, radius: f64) -> String {
        let r = radius;
        match self.marker() {
            Marker::Circle => {
                format!("M{:.1} {y:.1}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0Z", x - r, d = 2.0 * r)
            }
            Marker::Square => {
                let r = r * 0.9;
                format!("M{:.1} {:.1}h{d:.1}v{d:.1}h-{d:.1}Z", x - r, y - r, d = 2.0 * r)
            }
            Marker::Triangle => {
                let r = r * 1.15;
                format!("M{x:.1} {:.1}L{:.1} {:.1}H{:.1}Z", y - r, x + r, y + r * 0.8, x - r)
            }
            Marker::Wedge => {
                let r = r * 1.15;
                format!("M{x:.1} {:.1}L{:.1} {:.1}H{:.1}Z", y + r, x + r, y - r * 0.8, x - r)
            }
            Marker::Diamond => {
                let r = r * 1.25;
                format!("M{x:.1} {:.1}L{:.1} {y:.1}L{x:.1} {:.1}L{:.1} {y:.1}Z", y - r, x + r, y + r, x - r)
            }
            Marker::Cross => {
                format!(
                    "M{0:.1} {2:.1}L{1:.1} {3:.1}M{0:.1} {3:.1}L{1:.1} {2:.1}",
                    x - r,
                    x + r,
                    y - r,
                    y + r
                )
            }
        }
    }
}

/// The style sheet of the drawings: only what a dark page changes.
pub(super) fn dark_style() -> String {
    let mut style = String::from(
        ".paper{fill:#14181d}.ink{fill:#e8ecf0}.muted{fill:#9aa5b1}.rule{stroke:#2b323a}.axis{stroke:#56616c}\n\
         .beyond{fill:#1f252c}.bound{stroke:#e8ecf0}.bound-fill{fill:#7c8794}.hollow{fill:#14181d}\n",
    );
    for (index, Colour { dark, .. }) in COLOURS.iter().enumerate() {
        writeln!(style, ".c{index}{{stroke:{dark}}}.f{index}{{fill:{dark}}}")
            .expect("a String takes whatever is written to it");
    }
    style
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn eighteen_policies_look_different_without_their_colour() {
        let looks: HashSet<_> =
            (0..18).map(Look::of).map(|look| (look.dashes(), look.marker_path(0.0, 0.0, 3.0))).collect();
        assert_eq!(looks.len(), 18);
    }

    #[test]
    fn colours_stand_out_from_both_pages() {
        for Colour { light, dark } in COLOURS {
            assert!(contrast(light, PAPER) >= 3.0, "{light} on white: {}", contrast(light, PAPER));
            assert!(contrast(dark, "#14181d") >= 4.5, "{dark} on dark: {}", contrast(dark, "#14181d"));
        }
    }

    /// The contrast ratio of the Web Content Accessibility Guidelines.
    fn contrast(a: &str, b: &str) -> f64 {
        let luminance = |colour: &str| {
            let channel = |at: usize| {
                let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
                if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }
}
