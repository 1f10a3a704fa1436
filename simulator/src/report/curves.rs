//! The miss-ratio curves of a panel: one line per policy, labelled at its end, over the region
//! that no policy can reach.

use std::fmt::Write as _;

use super::axis::{Axis, float};
use super::palette::{BEYOND, INK, MUTED, PAPER, RULE};
use super::panel::{Panel, Series};
use super::svg::{Anchor, Drawing, Font};

/// How large a drawing is and how its parts share it.
#[derive(Clone, Copy)]
pub(super) struct Size {
    width: f64,
    height: f64,
    text: f64,
    max_ticks: usize,
}

/// For a screen, a document, a slide.
pub(super) const WIDE: Size = Size { width: 960.0, height: 470.0, text: 12.5, max_ticks: 9 };
/// For a telephone held upright.
pub(super) const NARROW: Size = Size { width: 400.0, height: 460.0, text: 11.5, max_ticks: 5 };

const TOP: f64 = 14.0;
const BOTTOM: f64 = 50.0;
const LEFT: f64 = 58.0;
/// Between the plot and its labels: room for the leader lines.
const LEADER: f64 = 18.0;
const SWATCH: f64 = 26.0;

struct Plot {
    x: Axis,
    y: Axis,
    right: f64,
    bottom: f64,
}

impl Plot {
    fn at(&self, capacity: u64, ratio: f64) -> (f64, f64) {
        let x = LEFT + self.x.position(float(capacity)) * (self.right - LEFT);
        (x, self.row(ratio))
    }

    fn row(&self, ratio: f64) -> f64 {
        self.bottom - self.y.position(ratio) * (self.bottom - TOP)
    }

    fn path(&self, series: &Series<'_>) -> String {
        let mut path = String::new();
        for (capacity, ratio) in series.points() {
            let (x, y) = self.at(capacity, ratio);
            let command = if path.is_empty() { 'M' } else { 'L' };
            write!(path, "{command}{x:.1} {y:.1}").expect("a String takes whatever is written to it");
        }
        path
    }
}

/// Draws the curves. There must be at least two capacities for this to be worth looking at.
pub(super) fn draw(panel: &Panel<'_>, size: Size) -> Drawing {
    let font = Font::new(size.text);
    let label_width = panel.series.iter().map(|series| font.bold().width(series.policy)).fold(0.0, f64::max);
    let (low, high) = panel.range();
    let (first, last) = (panel.capacities[0], panel.capacities[panel.capacities.len() - 1]);
    // Labels that do not fit beside the plot make it taller.
    let pitch = size.text + 3.5;
    let height = size.height.max(TOP + BOTTOM + pitch * float(panel.series.len() as u64));
    let plot = Plot {
        x: Axis::of_capacities(first, last, panel.mode, size.max_ticks),
        y: Axis::of_ratios(low, high),
        right: size.width - LEADER - SWATCH - 4.0 - label_width,
        bottom: height - BOTTOM,
    };
    let mut drawing = Drawing::new(size.width, height);
    frame(&mut drawing, panel, &plot, size);
    for bound in panel.bounds() {
        draw_bound(&mut drawing, bound, &plot);
    }
    // The best lie on top.
    for series in panel.ranked().into_iter().rev() {
        draw_line(&mut drawing, series, &plot, panel.capacities.len() <= 24);
    }
    draw_labels(&mut drawing, panel, &plot, font, pitch);
    drawing
}

fn frame(drawing: &mut Drawing, panel: &Panel<'_>, plot: &Plot, size: Size) {
    let font = Font::new(size.text - 0.5).muted();
    let Plot { x, y, right, bottom } = plot;
    for (ratio, label) in &y.ticks {
        let row = plot.row(*ratio);
        drawing.raw(format_args!(
            "<path class=\"rule\" d=\"M{LEFT:.1} {row:.1}H{right:.1}\" stroke=\"{RULE}\" stroke-width=\"1\"/>"
        ));
        drawing.text(LEFT - 8.0, row + 4.0, font.anchor(Anchor::End), label);
    }
    for (capacity, label) in &x.ticks {
        let column = LEFT + x.position(*capacity) * (right - LEFT);
        drawing.raw(format_args!(
            "<path class=\"axis\" d=\"M{column:.1} {bottom:.1}v5\" stroke=\"{MUTED}\" stroke-width=\"1\"/>"
        ));
        drawing.text(column, bottom + 19.0, font.anchor(Anchor::Middle), label);
    }
    drawing.raw(format_args!(
        "<path class=\"axis\" d=\"M{LEFT:.1} {bottom:.1}H{right:.1}\" stroke=\"{MUTED}\" stroke-width=\"1\"/>"
    ));
    let scale = if x.is_log() { ", logarithmic" } else { "" };
    let title = format!("Cache capacity in {}{scale}", panel.unit());
    drawing.text((LEFT + right) / 2.0, bottom + 40.0, font.anchor(Anchor::Middle), &title);
    let middle = (TOP + bottom) / 2.0;
    drawing.raw(format_args!("<g transform=\"rotate(-90 14 {middle:.1})\">"));
    drawing.text(14.0, middle, font.anchor(Anchor::Middle), "Miss ratio – lower is better");
    drawing.raw(format_args!("</g>"));
}

fn draw_bound(drawing: &mut Drawing, bound: &Series<'_>, plot: &Plot) {
    let path = plot.path(bound);
    let bottom = plot.bottom;
    let end =
        |capacity: Option<(u64, f64)>| capacity.map_or(LEFT, |(capacity, ratio)| plot.at(capacity, ratio).0);
    let (first, last) = (end(bound.points().next()), end(bound.points().last()));
    drawing.raw(format_args!(
        "<path class=\"beyond\" d=\"{path}L{last:.1} {bottom:.1}L{first:.1} {bottom:.1}Z\" fill=\"{BEYOND}\"/>"
    ));
    drawing.raw(format_args!(
        "<path class=\"bound\" d=\"{path}\" fill=\"none\" stroke=\"{INK}\" stroke-width=\"1.6\" stroke-dasharray=\"1.5 3.5\" stroke-linecap=\"round\"/>"
    ));
}

fn draw_line(drawing: &mut Drawing, series: &Series<'_>, plot: &Plot, with_markers: bool) {
    let look = series.look;
    let (class, colour, policy) = (look.class(), look.colour(), super::svg::Escaped(series.policy));
    drawing.raw(format_args!("<g class=\"series\" data-policy=\"{policy}\">"));
    drawing.raw(format_args!(
        "<path class=\"c{class}\" d=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\" stroke-dasharray=\"{}\"/>",
        plot.path(series),
        if look.dashes().is_empty() { "none" } else { look.dashes() },
    ));
    if with_markers {
        for (capacity, ratio) in series.points() {
            let (x, y) = plot.at(capacity, ratio);
            marker(drawing, series, x, y, 2.8);
        }
    }
    drawing.raw(format_args!("</g>"));
}

fn marker(drawing: &mut Drawing, series: &Series<'_>, x: f64, y: f64, radius: f64) {
    let look = series.look;
    let (class, colour) = (look.class(), look.colour());
    let (fill_class, fill) =
        if look.is_hollow() { ("hollow".to_owned(), PAPER) } else { (format!("f{class}"), colour) };
    drawing.raw(format_args!(
        "<path class=\"c{class} {fill_class}\" d=\"{}\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"1.3\"/>",
        look.marker_path(x, y, radius)
    ));
}

/// Labels beside the lines' ends. Where ends are close together the labels spread out, in the order
/// of the policies' mean, so that the list reads from worst (top) to best even where all lines meet.
fn draw_labels(drawing: &mut Drawing, panel: &Panel<'_>, plot: &Plot, font: Font, pitch: f64) {
    let mut ends: Vec<(f64, &Series<'_>)> = panel
        .ranked()
        .into_iter()
        .rev()
        .chain(panel.bounds())
        .filter_map(|series| series.points().last().map(|(_, ratio)| (plot.row(ratio), series)))
        .collect();
    // Lines that end within a few pixels of each other count as meeting: there the mean decides.
    ends.sort_by(|(a, left), (b, right)| {
        left.is_bound.cmp(&right.is_bound).then((a / 6.0).round().total_cmp(&(b / 6.0).round()))
    });
    let rows = spread(&ends.iter().map(|(row, _)| *row).collect::<Vec<_>>(), pitch, TOP + 4.0, plot.bottom);
    let start = plot.right + LEADER;
    for ((end, series), row) in ends.into_iter().zip(rows) {
        let policy = super::svg::Escaped(series.policy);
        drawing.raw(format_args!("<g class=\"series label\" data-policy=\"{policy}\">"));
        drawing.raw(format_args!(
            "<path class=\"rule\" d=\"M{:.1} {end:.1}L{:.1} {row:.1}\" fill=\"none\" stroke=\"{RULE}\" stroke-width=\"1\"/>",
            plot.right + 4.0,
            start - 2.0,
        ));
        key(drawing, series, start, row);
        let font = if series.is_bound { font } else { font.bold() };
        drawing.text(start + SWATCH + 4.0, row + font.size * 0.36, font, series.policy);
        drawing.raw(format_args!("</g>"));
    }
}

/// A sample of a line, with its marker.
fn key(drawing: &mut Drawing, series: &Series<'_>, x: f64, y: f64) {
    if series.is_bound {
        drawing.raw(format_args!(
            "<path class=\"bound\" d=\"M{x:.1} {y:.1}h{SWATCH}\" fill=\"none\" stroke=\"{INK}\" stroke-width=\"1.6\" stroke-dasharray=\"1.5 3.5\" stroke-linecap=\"round\"/>"
        ));
        return;
    }
    let look = series.look;
    drawing.raw(format_args!(
        "<path class=\"c{}\" d=\"M{x:.1} {y:.1}h{SWATCH}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{}\"/>",
        look.class(),
        look.colour(),
        if look.dashes().is_empty() { "none" } else { look.dashes() },
    ));
    marker(drawing, series, x + SWATCH / 2.0, y, 3.2);
}

/// Moves sorted rows apart to at least `pitch`, as little as possible, between `top` and `bottom`.
fn spread(rows: &[f64], pitch: f64, top: f64, bottom: f64) -> Vec<f64> {
    // Groups of rows that touch are centred on the mean of what they want, and merge as they grow.
    struct Group {
        wanted: f64,
        count: u32,
    }
    impl Group {
        fn start(&self, pitch: f64, top: f64, bottom: f64) -> f64 {
            let height = f64::from(self.count - 1) * pitch;
            (self.wanted / f64::from(self.count) - height / 2.0).min(bottom - height).max(top)
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        groups.push(Group { wanted: *row, count: 1 });
        while let [.., above, below] = groups.as_slice() {
            let end = above.start(pitch, top, bottom) + f64::from(above.count) * pitch;
            if end <= below.start(pitch, top, bottom) {
                break;
            }
            let merged = Group { wanted: above.wanted + below.wanted, count: above.count + below.count };
            groups.truncate(groups.len() - 2);
            groups.push(merged);
        }
    }
    let mut places = Vec::with_capacity(rows.len());
    for group in groups {
        let mut place = group.start(pitch, top, bottom);
        for _ in 0..group.count {
            places.push(place);
            place += pitch;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_move_apart_no_further_than_needed() {
        let cases: [(&[f64], &[f64]); 4] = [
            (&[10.0, 50.0], &[10.0, 50.0]),
            (&[50.0, 50.0], &[45.0, 55.0]),
            (&[99.0, 99.0, 99.0], &[80.0, 90.0, 100.0]),
            (&[0.0, 1.0, 30.0], &[0.0, 10.0, 30.0]),
        ];
        for (rows, expected) in cases {
            assert_eq!(spread(rows, 10.0, 0.0, 100.0), expected, "{rows:?}");
        }
    }
}
