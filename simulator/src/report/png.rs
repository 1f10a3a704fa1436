//! From SVG to PNG, by resvg and two embedded weights of Inter (SIL Open Font License, see
//! `fonts/OFL.txt`), so that the machine that runs the simulator needs no fonts.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::PngError;

static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    for face in [
        &include_bytes!("../../fonts/inter-regular.ttf")[..],
        &include_bytes!("../../fonts/inter-semibold.ttf")[..],
    ] {
        fonts.load_font_data(face.to_vec());
    }
    Arc::new(fonts)
});

const SCALE: f32 = 2.0;

/// Longer sides than this are drawn at a smaller scale: many viewers refuse larger pictures.
const LONGEST_SIDE: f32 = 16_000.0;

pub(super) fn render(svg: &str) -> Result<Vec<u8>, PngError> {
    let reason = |reason: &dyn std::fmt::Display| PngError(reason.to_string());
    let options =
        Options { font_family: "Inter".to_owned(), fontdb: Arc::clone(&FONTS), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|error| reason(&error))?;
    let (width, height) = (tree.size().width(), tree.size().height());
    let scale = SCALE.min(LONGEST_SIDE / width.max(height));
    let size = tree.size().to_int_size().scale_by(scale);
    let size = size.ok_or_else(|| PngError(format!("{width} by {height} is no size for a picture")))?;
    let mut pixels = Pixmap::new(size.width(), size.height())
        .ok_or_else(|| PngError(format!("{width} by {height} is too large")))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| reason(&error))
}
