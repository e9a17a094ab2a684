//! Plots as SVG, by hand: they open in any browser and need nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::report::Timeline;
use crate::float;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 150.0;
const BOTTOM: f64 = 50.0;
const LEGEND_STEP: f64 = 18.0;
const NONE: &str = "#ff0000";
const DIRECT: &str = "#cccccc";
/// Told apart also by those who do not see all colours (Okabe and Ito).
const COLOURS: [&str; 8] =
    ["#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b5a800"];

struct Canvas(String);

impl Canvas {
    fn new(title: &str, height: f64) -> Self {
        let mut canvas = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        ));
        canvas.text(LEFT, TOP - 16.0, "start", title);
        canvas
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, words: &str) {
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
        );
    }

    fn rect(&mut self, [x, y, width, height]: [f64; 4], colour: &str) {
        let _ = writeln!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{colour}\"/>"
        );
    }

    fn path(&mut self, points: &[(f64, f64)], colour: &str, width: f64) {
        let mut d = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let _ = write!(d, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
        }
        let _ = writeln!(
            self.0,
            "<path d=\"{d}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
        );
    }

    fn axes(&mut self) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        self.path(&[(LEFT, TOP), (LEFT, bottom), (right, bottom)], "#888888", 1.0);
    }

    fn legend(&mut self, index: usize, colour: &str, name: &str) {
        let y = TOP + LEGEND_STEP * index as f64;
        self.rect([WIDTH - RIGHT + 12.0, y, 12.0, 12.0], colour);
        self.text(WIDTH - RIGHT + 30.0, y + 11.0, "start", name);
    }

    fn done(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

const fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn number(value: f64) -> String {
    if value == 0.0 || (0.01..10_000.0).contains(&value) {
        let digits = if value < 1.0 && value > 0.0 { 2 } else { usize::from(value < 10.0) };
        format!("{value:.digits$}")
    } else {
        format!("{value:.0e}")
    }
}

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Logarithmic,
    Linear,
}

impl Axis {
    fn place(self, value: f64) -> f64 {
        if self == Self::Logarithmic { float::log10(value.max(1e-3)) } else { value }
    }

    fn value(self, place: f64) -> f64 {
        if self == Self::Logarithmic { float::pow(10.0, place) } else { place }
    }

    /// The first and the last mark for values between these, and how many steps lie between.
    fn marks(self, low: f64, high: f64) -> (f64, f64, u32) {
        let low = low.floor();
        let high = high.ceil();
        // What never varies is at the right end.
        let low = if high - low < 1.0 { high - 1.0 } else { low };
        let steps = if self == Self::Logarithmic { (high - low) as u32 } else { 5 };
        (low, high, steps)
    }
}

/// Cumulative distributions.
pub(super) fn cdf(title: &str, curves: &[(String, Vec<(f64, f64)>)], axis: Axis) -> String {
    let mut canvas = Canvas::new(title, HEIGHT);
    canvas.axes();
    let all = || curves.iter().flat_map(|curve| &curve.1).map(|point| axis.place(point.0));
    let (low, high) =
        (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    if !low.is_finite() {
        canvas.text(LEFT + 20.0, TOP + 40.0, "start", "nothing to show");
        return canvas.done();
    }
    let (low, high, marks) = axis.marks(low, high);
    let along = |place: f64| LEFT + (place - low) / (high - low) * (WIDTH - LEFT - RIGHT);
    let x = |value: f64| along(axis.place(value));
    let y = |fraction: f64| HEIGHT - BOTTOM - fraction * (HEIGHT - TOP - BOTTOM);
    for mark in 0..=marks {
        let place = low + (high - low) * f64::from(mark) / f64::from(marks);
        canvas.path(&[(along(place), y(0.0)), (along(place), y(1.0))], "#eeeeee", 1.0);
        canvas.text(along(place), HEIGHT - BOTTOM + 18.0, "middle", &number(axis.value(place)));
    }
    for quarter in 0..=4 {
        let fraction = f64::from(quarter) / 4.0;
        canvas.text(LEFT - 8.0, y(fraction) + 4.0, "end", &number(fraction));
    }
    for (index, (name, points)) in curves.iter().enumerate() {
        let mut line = Vec::new();
        let mut last = 0.0;
        for &(value, fraction) in points {
            line.extend([(x(value), y(last)), (x(value), y(fraction))]);
            last = fraction;
        }
        canvas.path(&line, colour(index), 2.0);
        canvas.legend(index, colour(index), name);
    }
    canvas.done()
}

/// Named values.
pub(super) fn bars(title: &str, values: &[(String, f64)]) -> String {
    let mut canvas = Canvas::new(title, HEIGHT);
    canvas.axes();
    let most = values.iter().map(|value| value.1).fold(1e-9, f64::max);
    let step = (WIDTH - LEFT - RIGHT) / values.len().max(1) as f64;
    for (index, (name, value)) in values.iter().enumerate() {
        let height = value / most * (HEIGHT - TOP - BOTTOM);
        let x = LEFT + step * (index as f64 + 0.15);
        let top = HEIGHT - BOTTOM - height;
        canvas.rect([x, top, step * 0.7, height], colour(index));
        canvas.text(x + step * 0.35, top - 4.0, "middle", &format!("{value:.4}"));
        canvas.legend(index, colour(index), name);
    }
    canvas.done()
}

/// One line over linear axes that begin at zero.
pub(super) fn line(x_name: &str, y_name: &str, points: &[(f64, f64)]) -> String {
    let mut canvas = Canvas::new(&format!("{y_name} by {x_name}"), HEIGHT);
    canvas.axes();
    let most = |f: fn(&(f64, f64)) -> f64| points.iter().map(f).fold(1e-9, f64::max);
    let (x_most, y_most) = (most(|point| point.0), most(|point| point.1));
    let place = |&(x, y): &(f64, f64)| {
        let along = LEFT + x / x_most * (WIDTH - LEFT - RIGHT);
        (along, HEIGHT - BOTTOM - y / y_most * (HEIGHT - TOP - BOTTOM))
    };
    let line: Vec<_> = points.iter().map(place).collect();
    canvas.path(&line, colour(1), 2.0);
    for (point, (x, y)) in points.iter().zip(line) {
        canvas.rect([x - 3.0, y - 3.0, 6.0, 6.0], colour(1));
        canvas.text(x, y - 8.0, "middle", &number(point.1));
        canvas.text(x, HEIGHT - BOTTOM + 18.0, "middle", &number(point.0));
    }
    canvas.done()
}

/// A strip for each pair: direct, by which relay, or none.
pub(super) fn timeline(timeline: &Timeline) -> String {
    let row_height = 14.0;
    let legend = legend(timeline);
    let strips = row_height * timeline.rows.len() as f64;
    let height = TOP + BOTTOM + strips.max(LEGEND_STEP * legend.len() as f64);
    let (ticks, every) = timeline.span();
    let span = f64::from(ticks.max(1));
    let (shown, all) = (timeline.rows.len(), timeline.pairs());
    let of = if shown < all { format!("the first {shown} of {all}") } else { format!("all {all}") };
    let title = format!("paths over {:.0} s: {of} pairs", span * every.as_secs_f64());
    let mut canvas = Canvas::new(&title, height);
    let x = |tick: u32| LEFT + f64::from(tick) / span * (WIDTH - LEFT - RIGHT);
    for (index, ((a, b), changes)) in timeline.rows.iter().enumerate() {
        let y = TOP + row_height * index as f64;
        canvas.text(LEFT - 6.0, y + 10.0, "end", &format!("n{a} > n{b}"));
        let ends = changes.iter().skip(1).map(|change| change.0).chain([ticks]);
        for (&(from, code), to) in changes.iter().zip(ends) {
            canvas.rect([x(from), y, x(to) - x(from), row_height - 3.0], path_colour(code));
        }
    }
    for (index, (colour, name)) in legend.iter().enumerate() {
        canvas.legend(index, colour, name);
    }
    canvas.done()
}

const fn path_colour(code: u16) -> &'static str {
    match code {
        0 => NONE,
        1 => DIRECT,
        relay => colour(relay as usize - 2),
    }
}

/// What each colour of a timeline means; with many relays some have the same one.
fn legend(timeline: &Timeline) -> Vec<(&'static str, String)> {
    let codes: BTreeSet<u16> =
        timeline.rows.iter().flat_map(|row| &row.1).map(|change| change.1).collect();
    let mut legend = vec![(DIRECT, "direct".to_owned()), (NONE, "none".to_owned())];
    for relay in codes.iter().filter_map(|code| code.checked_sub(2)) {
        let (colour, name) = (path_colour(relay + 2), format!("n{relay}"));
        match legend.iter_mut().find(|entry| entry.0 == colour) {
            Some((_, names)) if names.len() < 14 => *names += &format!(", {name}"),
            Some((_, names)) if !names.ends_with("...") => *names += ", ...",
            Some(_) => {}
            None => legend.push((colour, format!("by {name}"))),
        }
    }
    legend
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_well_formed_even_of_nothing() {
        let curve = vec![("a & <b>".to_owned(), vec![(0.5, 0.25), (1_000.0, 1.0)])];
        for svg in [
            cdf("t", &curve, Axis::Logarithmic),
            cdf("t", &curve, Axis::Linear),
            cdf("t", &[("a".to_owned(), vec![(100.0, 1.0)])], Axis::Linear),
            cdf("t", &[], Axis::Logarithmic),
            bars("t", &[("a".to_owned(), 0.0)]),
            bars("t", &[]),
            line("x", "y", &[(5.0, 1.0), (400.0, 33.0)]),
        ] {
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(!svg.contains("a & <b>"));
        }
    }
}
