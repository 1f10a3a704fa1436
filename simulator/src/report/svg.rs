//! A thin writer of SVG text: every drawing goes through here, so that escaping and number formats
//! are right in one place.
//!
//! Colours are literal attributes, which every renderer understands, and classes beside them, by
//! which a style sheet gives the dark variant. Nothing here needs an id, so that one page can hold
//! any number of drawings.

use std::fmt::{self, Write as _};

use super::palette::{INK, MUTED};

/// Text that is safe in element content and in a quoted attribute.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // XML has no way to write other control characters.
                control if control.is_control() => f.write_char('\u{fffd}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Where a text is anchored.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub(super) struct Font {
    pub(super) size: f64,
    pub(super) bold: bool,
    pub(super) muted: bool,
    pub(super) anchor: Anchor,
}

impl Font {
    pub(super) const fn new(size: f64) -> Self {
        Self { size, bold: false, muted: false, anchor: Anchor::Start }
    }

    pub(super) const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(super) const fn muted(self) -> Self {
        Self { muted: true, ..self }
    }

    pub(super) const fn anchor(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// About how wide a text will be. The font that the reader has is not known, so this is generous.
    pub(super) fn width(self, text: &str) -> f64 {
        let ems: f64 = text
            .chars()
            .map(|character| match character {
                'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' => 0.3,
                'f' | 't' | 'r' | '-' | ' ' | '(' | ')' => 0.42,
                'm' | 'w' | 'M' | 'W' | '%' => 0.92,
                'A'..='Z' => 0.7,
                _ => 0.62,
            })
            .sum();
        // The widest of the common fonts.
        ems * self.size * if self.bold { 1.2 } else { 1.06 }
    }
}

/// A drawing of a given size, or a part of one.
pub(super) struct Drawing {
    pub(super) width: f64,
    pub(super) height: f64,
    body: String,
}

impl Drawing {
    pub(super) const fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// Appends markup that is known to be well-formed.
    pub(super) fn raw(&mut self, markup: fmt::Arguments<'_>) {
        self.body.write_fmt(markup).expect("a String takes whatever is written to it");
        self.body.push('\n');
    }

    pub(super) fn text(&mut self, x: f64, y: f64, font: Font, text: &str) {
        let weight = if font.bold { " font-weight=\"600\"" } else { "" };
        let anchor = match font.anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let (class, fill) = if font.muted { ("muted", MUTED) } else { ("ink", INK) };
        let size = font.size;
        self.raw(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{fill}\"{weight}{anchor}>{}</text>",
            Escaped(text)
        ));
    }

    /// Places another drawing with its upper left corner at the given point.
    pub(super) fn place(&mut self, x: f64, y: f64, other: &Self) {
        self.raw(format_args!("<g transform=\"translate({x:.1} {y:.1})\">\n{}</g>", other.body));
    }

    /// A complete element, to stand in a page that has the style sheet.
    pub(super) fn element(&self, class: &str, label: &str) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"{class}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"{FONTS}\" role=\"img\" aria-label=\"{}\">\n\
             {body}</svg>\n",
            Escaped(label)
        )
    }

    /// A complete file; `style` is its own style sheet, which may be empty.
    pub(super) fn file(&self, style: &str, label: &str) -> String {
        let element = self.element("plot", label);
        let start = element.find('\n').map_or(element.len(), |end| end + 1);
        let (open, body) = element.split_at(start);
        let style = if style.is_empty() { String::new() } else { format!("<style>\n{style}</style>\n") };
        format!(
            "{open}{style}<rect class=\"paper\" width=\"100%\" height=\"100%\" fill=\"{}\"/>\n{body}",
            super::palette::PAPER
        )
    }
}

/// The first that the reader's system has is used; PNG files are drawn with the embedded one.
const FONTS: &str = "Inter, system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_wherever_it_stands() {
        let mut drawing = Drawing::new(10.0, 10.0);
        drawing.text(0.0, 0.0, Font::new(10.0), "<b>&\"'\u{7}");
        let file = drawing.file("", "a \"quoted\" <label>");
        assert!(file.contains(">&lt;b&gt;&amp;&quot;&#39;\u{fffd}</text>"), "{file}");
        assert!(file.contains("aria-label=\"a &quot;quoted&quot; &lt;label&gt;\""), "{file}");
    }
}
