//! The chart of a document: a group of bars for each work, a bar for each peer. Plain SVG that follows the reader's choice
//! of light or dark.

use crate::table::seconds;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const BAR: f64 = 18.0;
const NAMES: f64 = 190.0;
const VALUES: f64 = 90.0;
const MARGIN: f64 = 16.0;

const CAPTION: &str = "Seconds until all is whole and synced, medians; shorter is better";

const STYLE: &str = "\
.paper{fill:#fff}text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:14px}\
.value{fill:#59636e}.bar{fill:#a3b1c2}.own{fill:#d9622b}.base{fill:#6b7785}\
@media(prefers-color-scheme:dark){.paper{fill:#0d1117}text{fill:#e6edf3}.value{fill:#9198a1}.bar{fill:#4b5a6b}\
.own{fill:#f0803c}.base{fill:#8b98a5}}";

/// Draws groups of bars, each with a title; lengths are relative within a group, the shortest bar comes first.
pub fn draw(groups: &[(String, Vec<(String, f64)>)]) -> String {
    let mut body = format!("<text class=\"value\" x=\"{MARGIN}\" y=\"{}\">{CAPTION}</text>\n", MARGIN + 10.0);
    let mut y = 2.0 * MARGIN + 10.0;
    for (title, bars) in groups {
        y = draw_group(&mut body, y, title, bars);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" role=\"img\" \
         aria-label=\"{CAPTION}\">\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
    )
}

/// Gives where the next one begins.
fn draw_group(body: &mut String, mut y: f64, title: &str, bars: &[(String, f64)]) -> f64 {
    let mut bars: Vec<&(String, f64)> = bars.iter().filter(|(_, value)| value.is_finite()).collect();
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    let most = bars.last().map_or(1.0, |bar| bar.1).max(f64::MIN_POSITIVE);
    // Writing to a string cannot fail.
    let _ = writeln!(body, "<text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{}</text>", y + 14.0, escaped(title));
    y += 24.0;
    for (name, value) in bars {
        let length = (WIDTH - 2.0 * MARGIN - NAMES - VALUES) * value / most;
        let (x, baseline) = (MARGIN + NAMES, y + BAR - 5.0);
        let class = match &name[..] {
            name if name.starts_with("bigup") => "own",
            name if name.starts_with("cp") => "base",
            _ => "bar",
        };
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{baseline}\" text-anchor=\"end\">{}</text><rect class=\"{class}\" x=\"{x}\" y=\"{}\" \
             width=\"{length:.1}\" height=\"{}\" rx=\"2\"/><text class=\"value\" x=\"{:.1}\" y=\"{baseline}\">{}</text>",
            x - 8.0,
            escaped(name),
            y + 1.0,
            BAR - 4.0,
            x + length + 6.0,
            seconds(*value)
        );
        y += BAR;
    }
    y + MARGIN
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
