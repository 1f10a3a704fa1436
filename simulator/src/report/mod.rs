//! Reports: what a person looks at after a simulation. Miss-ratio curves, bars per capacity and a table, as one HTML
//! file that needs nothing but itself, and the same plots as SVG and PNG.
//!
//! There is one drawing code, which writes SVG (`curves`, `bars`). The page holds its output inline, the SVG
//! file is its output, and the PNG file is that file drawn by resvg with an embedded font, so that it looks the same
//! on a machine without fonts.
//!
//! **Invariant: self-contained.** A page fetches nothing: no link, image, font or script from
//! elsewhere, which its own content security policy forbids as well. Nothing in it needs the script
//! but the sorting of the table and the highlighting by a click.
//!
//! **Invariant: reproducible.** The same results give the same bytes; no clock is read.

mod axis;
mod bars;
mod curves;
mod html;
mod palette;
mod panel;
#[cfg(not(fuzzing))]
mod png;
mod svg;

pub use self::axis::full_capacity as capacity_text;
use self::panel::Panel;
use self::svg::{Drawing, Font};
use crate::SimulationResult;
use crate::advice::Advice;

/// Everything that a report shows.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// What stands at the top.
    pub title: &'a str,
    /// Sentences below the title: how the figures were made, what to mind when reading them.
    pub notes: &'a [String],
    /// The results, in the order in which policies are to be listed.
    pub results: &'a [SimulationResult],
    /// What other capacities would give; may be empty.
    pub advice: &'a [Advice],
}

/// A plot could not be turned into a bitmap.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the plots as PNG: {0}")]
pub struct PngError(String);

/// More bars than this are not taken in at a glance; the table has all of them.
const BAR_PLOTS: usize = 6;

const GAP: f64 = 28.0;
const MARGIN: f64 = 24.0;
const PAGE_WIDTH: f64 = 960.0;

impl Report<'_> {
    /// The report as one HTML page.
    #[must_use]
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// All plots below one another as an SVG file, dark where the reader's system is.
    #[must_use]
    pub fn svg(&self) -> String {
        let style = format!("@media (prefers-color-scheme: dark){{\n{}}}\n", palette::dark_style());
        self.plots().file(&style, self.title)
    }

    /// All plots below one another as a PNG file, at twice the size of the SVG.
    pub fn png(&self) -> Result<Vec<u8>, PngError> {
        let svg = self.plots().file("", self.title);
        #[cfg(not(fuzzing))]
        return png::render(&svg);
        #[cfg(fuzzing)]
        Err(PngError(format!("{} bytes of SVG, and nothing to draw them in a fuzz target", svg.len())))
    }

    fn plots(&self) -> Drawing {
        let mut parts: Vec<(f64, f64, Drawing)> = Vec::new();
        let mut y = MARGIN;
        for panel in Panel::all(self.results) {
            let mut heading = Drawing::new(PAGE_WIDTH, 30.0);
            heading.text(0.0, 18.0, Font::new(18.0).bold(), &panel.heading());
            parts.push((MARGIN, y, heading));
            y += 34.0;
            if panel.capacities.len() > 1 {
                let curves = curves::draw(&panel, curves::WIDE);
                let height = curves.height;
                parts.push((MARGIN, y, curves));
                y += height + GAP;
            }
            let (_, longest) = panel.range();
            let columns = 3;
            let pitch = (PAGE_WIDTH - bars::WIDTH) / 2.0;
            let capacities = panel.spread_capacities(BAR_PLOTS);
            for row in capacities.chunks(columns) {
                let mut tallest = 0.0_f64;
                let mut x = MARGIN;
                for capacity in row {
                    let drawing = bars::draw(&panel, *capacity, longest);
                    tallest = tallest.max(drawing.height);
                    parts.push((x, y, drawing));
                    x += pitch;
                }
                y += tallest + GAP;
            }
        }
        let mut page = Drawing::new(PAGE_WIDTH + 2.0 * MARGIN, y - GAP + MARGIN);
        for (x, y, part) in &parts {
            page.place(*x, *y, part);
        }
        page
    }
}

#[cfg(test)]
mod tests;
