//! The picture of docs/performance.md: for each bar a beam as long as what is reached of it, on a logarithmic axis from a quarter
//! of the bar to four times the bar. A line marks the bar itself.
use std::fmt::Write as _;

use super::bars::Judged;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 360.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 26.0;
const TOP: f64 = 46.0;
/// The ends of the axis, as powers of two.
const ENDS: (f64, f64) = (-2.0, 2.0);

/// Where a share of a bar lies on the axis.
fn place(reached: f64) -> f64 {
    let power = reached.max(f64::MIN_POSITIVE).log2().clamp(ENDS.0, ENDS.1);
    LEFT + (power - ENDS.0) / (ENDS.1 - ENDS.0) * (WIDTH - LEFT - RIGHT)
}

/// The picture, as SVG.
#[allow(clippy::cast_precision_loss, reason = "a few rows")]
pub(super) fn draw(judged: &[Judged]) -> String {
    let drawn: Vec<(&Judged, f64)> =
        judged.iter().filter_map(|judged| Some((judged, judged.reached()?))).collect();
    let height = TOP + ROW * drawn.len() as f64 + 14.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (power, label) in [(-2.0, "1/4"), (-1.0, "1/2"), (0.0, "the bar"), (1.0, "2 x"), (2.0, "4 x")] {
        let x = place(f64::exp2(power));
        let (color, width) = if power == 0.0 { ("#333", 2) } else { ("#ccc", 1) };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "<text x=\"{x:.0}\" y=\"24\" text-anchor=\"middle\" fill=\"#555\">{label}</text>\n<line x1=\"{x:.0}\" y1=\"32\" \
             x2=\"{x:.0}\" y2=\"{:.0}\" stroke=\"{color}\" stroke-width=\"{width}\"/>",
            height - 8.0
        );
    }
    for (row, (judged, reached)) in drawn.iter().enumerate() {
        let (y, x, zero) = (TOP + ROW * row as f64, place(*reached), place(1.0));
        let color = if *reached >= 1.0 { "#2a7f62" } else { "#b5443c" };
        let (from, length) = (x.min(zero), (x - zero).abs().max(2.0));
        let what = escaped(&format!("{}, {}", judged.text, judged.unit));
        let _ = writeln!(
            text,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{what}</text>\n<rect x=\"{from:.0}\" y=\"{:.0}\" \
             width=\"{length:.0}\" height=\"14\" fill=\"{color}\"/>\n<text x=\"{:.0}\" y=\"{:.0}\" fill=\"{color}\">{:.2}</text>",
            LEFT - 10.0,
            y + 12.0,
            y + 1.0,
            WIDTH - RIGHT + 12.0,
            y + 12.0,
            reached
        );
    }
    text.push_str("</svg>\n");
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(measured: Option<f64>) -> Judged {
        Judged { name: "a", text: "a < b", unit: "us", bound: 2.0, more_is_better: true, measured }
    }

    #[test]
    fn the_axis_is_the_same_on_both_sides_of_the_bar_and_ends() {
        let middle = place(1.0);
        assert!((place(2.0) - middle - (middle - place(0.5))).abs() < 1e-9);
        assert!((place(100.0) - place(4.0)).abs() < 1e-9 && (place(0.0) - LEFT).abs() < 1e-9);
    }

    #[test]
    fn what_was_measured_is_drawn_and_nothing_else() {
        let drawn = draw(&[judged(Some(1.0)), judged(None), judged(Some(4.0))]);
        assert_eq!(drawn.matches("height=\"14\"").count(), 2);
        assert!(
            drawn.contains("a &lt; b, us") && drawn.contains(">0.50<") && drawn.contains(">2.00<"),
            "{drawn}"
        );
    }
}
