//! Bars: for one capacity, every policy's miss ratio, the best first, with the optimum as a line
//! through all of them.

use super::axis::full_capacity;
use super::palette::{INK, RULE};
use super::panel::Panel;
use super::svg::{Anchor, Drawing, Escaped, Font};
use crate::Mode;

pub(super) const WIDTH: f64 = 300.0;
const ROW: f64 = 19.0;
const HEAD: f64 = 30.0;
const VALUE: f64 = 58.0;
const FONT: Font = Font::new(12.0);

/// Draws the bars of one capacity. `longest` is the miss ratio that fills the width, the same for
/// all capacities that are to be compared.
pub(super) fn draw(panel: &Panel<'_>, capacity: u64, longest: f64) -> Drawing {
    let ranked = panel.ranked_at(capacity);
    let bounds: Vec<_> =
        panel.bounds().filter_map(|series| Some((series.policy, series.at(capacity)?.miss_ratio))).collect();
    let names = panel.series.iter().map(|series| FONT.bold().width(series.policy)).fold(40.0, f64::max);
    let left = names.min(WIDTH / 2.0) + 8.0;
    let scale = (WIDTH - left - VALUE) / longest.max(f64::MIN_POSITIVE);
    let rows = super::axis::float((ranked.len() + bounds.len()) as u64);
    let mut drawing = Drawing::new(WIDTH, HEAD + rows * ROW + 6.0);

    let unit = if panel.mode == Mode::Items { " objects" } else { "" };
    drawing.text(
        0.0,
        16.0,
        Font::new(13.5).bold(),
        &format!("{}{unit}", full_capacity(capacity, panel.mode)),
    );
    let mut top = HEAD;
    for (place, (series, result)) in ranked.iter().enumerate() {
        let (class, colour) = (series.look.class(), series.look.colour());
        let width = (result.miss_ratio * scale).max(0.5);
        drawing.raw(format_args!("<g class=\"series\" data-policy=\"{}\">", Escaped(series.policy)));
        let font = if place == 0 { FONT.bold() } else { FONT };
        drawing.text(left - 8.0, top + 12.5, font.anchor(Anchor::End), series.policy);
        drawing.raw(format_args!(
            "<rect class=\"f{class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"1.5\" fill=\"{colour}\"/>",
            top + 2.0,
            ROW - 5.0,
        ));
        drawing.text(left + width + 5.0, top + 12.5, font, &format!("{:.4}", result.miss_ratio));
        drawing.raw(format_args!("</g>"));
        top += ROW;
    }
    for (policy, ratio) in bounds {
        let end = left + ratio * scale;
        drawing.text(left - 8.0, top + 12.5, FONT.muted().anchor(Anchor::End), policy);
        drawing.raw(format_args!(
            "<rect class=\"bound\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"1.5\" fill=\"none\" stroke=\"{INK}\" stroke-dasharray=\"1.5 2.5\"/>",
            top + 2.5,
            (ratio * scale).max(0.5),
            ROW - 6.0,
        ));
        drawing.text(end + 5.0, top + 12.5, FONT.muted(), &format!("{ratio:.4}"));
        drawing.raw(format_args!(
            "<path class=\"bound\" d=\"M{end:.1} {:.1}V{top:.1}\" stroke=\"{INK}\" stroke-width=\"1\" stroke-dasharray=\"1.5 2.5\" fill=\"none\"/>",
            HEAD - 2.0,
        ));
        top += ROW;
    }
    drawing.raw(format_args!(
        "<path class=\"rule\" d=\"M{left:.1} {:.1}V{top:.1}\" stroke=\"{RULE}\" stroke-width=\"1\"/>",
        HEAD - 2.0
    ));
    drawing
}
