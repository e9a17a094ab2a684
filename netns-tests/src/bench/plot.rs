//! The pictures: horizontal bars with the range of their rounds, as SVG and as PNG.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::contender::{Kind, Mode};
use super::report::Report;
use super::statistic::{Spread, Value, value};

/// What PNGs are written with (Debian's fonts-dejavu-core).
const FONTS: &[(FontStyle, &str)] = &[
    (FontStyle::Normal, "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"),
    (FontStyle::Bold, "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"),
];

/// A card of its own colour reads on dark pages and on light ones.
const CARD: RGBColor = RGBColor(0xfb, 0xfb, 0xf8);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const PALE: RGBColor = RGBColor(0x66, 0x66, 0x66);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xd8);
/// Colours that stay apart for colour-blind readers (Okabe and Ito); darker ones for the parts of
/// a stack.
const OWN: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const KERNEL: RGBColor = RGBColor(0x9a, 0x9a, 0x9a);
const YARDSTICK: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
const PEER: RGBColor = RGBColor(0xcc, 0x79, 0xa7);

const KEY: &[(&str, RGBColor)] = &[
    ("rongate", OWN),
    ("kernel, no tunnel", KERNEL),
    ("yardsticks", YARDSTICK),
    ("other tunnels", PEER),
];

/// Pixels at a scale of 1.
mod size {
    pub(super) const PANEL: i32 = 560;
    pub(super) const LABELS: i32 = 150;
    pub(super) const VALUES: i32 = 70;
    pub(super) const HEAD: i32 = 58;
    pub(super) const ROW: i32 = 27;
    pub(super) const FOOT: i32 = 52;
}

struct Bar {
    name: String,
    colour: RGBColor,
    spread: Spread,
    /// Shares of the whole, of those that it consists of; they are set apart by gaps.
    shares: Vec<f64>,
}

struct Panel {
    title: String,
    axis: &'static str,
    decimals: usize,
    bars: Vec<Bar>,
}

/// A picture: its file's name and its panels.
struct Picture {
    name: &'static str,
    panels: Vec<Panel>,
}

const fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Plain | Kind::Masquerade => KERNEL,
        Kind::Direct | Kind::Takeover | Kind::Relay | Kind::Exit | Kind::ExitRouted => OWN,
        Kind::BareRelay
        | Kind::BareTunnel
        | Kind::BarePlain
        | Kind::Naive
        | Kind::Stock
        | Kind::StockTuned => YARDSTICK,
        Kind::WireguardGo | Kind::Boringtun | Kind::Gotatun | Kind::Nebula | Kind::Tinc => PEER,
    }
}

impl Report {
    fn panel(
        &self,
        mode: Mode,
        title: &str,
        axis: &'static str,
        decimals: usize,
        value: Value,
    ) -> Panel {
        let bar = |name: &str| {
            let kind = self.of(mode, name).next()?.kind;
            let spread = self.spread(mode, name, value)?;
            Some(Bar { name: name.into(), colour: colour(kind), spread, shares: Vec::new() })
        };
        let bars = self.names(mode).into_iter().filter_map(bar).collect();
        Panel { title: format!("{title}, {} mode", mode.name()), axis, decimals, bars }
    }

    /// What each daemon has of the cost of one stream, of all rounds together.
    fn shares(&self, mode: Mode, name: &str) -> Vec<f64> {
        let mut sums: Vec<f64> = Vec::new();
        let samples = self.of(mode, name).filter_map(|row| row.sample.as_ref()?.tcp1.as_ref());
        for tcp in samples {
            sums.resize(sums.len().max(tcp.cpu_per_gb.len()), 0.0);
            sums.iter_mut().zip(&tcp.cpu_per_gb).for_each(|(sum, each)| *sum += each);
        }
        let all: f64 = sums.iter().sum();
        sums.into_iter().map(|sum| sum / all).collect()
    }

    fn pictures(&self) -> Vec<Picture> {
        use Mode::{Super, Wire};
        let throughput =
            |mode| self.panel(mode, "TCP, 1 stream", "Mbit/s, more is better", 0, value::tcp1);
        let cost = |mode| {
            let axis = "CPU seconds per GB, from first to last daemon, less is better";
            let mut panel = self.panel(mode, "Cost of bulk TCP", axis, 2, value::cpu1);
            for bar in &mut panel.bars {
                bar.shares = self.shares(mode, &bar.name);
            }
            panel
        };
        let packets = self.panel(
            Wire,
            "100-byte UDP at overload",
            "delivered, 1000 packets/s, more is better",
            0,
            value::flood,
        );
        let packet = self.panel(
            Wire,
            "Small packet at 20 kpps",
            "CPU us, all daemons, less is better",
            1,
            value::packet,
        );
        let idle =
            self.panel(Wire, "RTT, idle", "median in us, less is better", 0, value::idle_p50);
        let load = self.panel(
            Wire,
            "RTT beside bulk TCP",
            "median in us, less is better",
            0,
            value::load_p50,
        );
        vec![
            Picture { name: "throughput", panels: vec![throughput(Wire), throughput(Super)] },
            Picture { name: "cost", panels: vec![cost(Wire), cost(Super)] },
            Picture { name: "small-packets", panels: vec![packets, packet] },
            Picture { name: "delay", panels: vec![idle, load] },
        ]
    }

    /// Writes all pictures into a directory, each as NAME.svg and NAME.png.
    pub fn plot(&self, directory: &Path) -> Result<()> {
        for (style, file) in FONTS {
            let font = fs::read(file)
                .with_context(|| format!("plots need {file} (package fonts-dejavu-core)"))?;
            plotters::style::register_font("sans-serif", *style, Box::leak(font.into()))
                .map_err(|_| anyhow!("{file} is no font"))?;
        }
        fs::create_dir_all(directory)?;
        for mut picture in self.pictures() {
            picture.panels.retain(|panel| !panel.bars.is_empty());
            if !picture.panels.is_empty() {
                picture.write(directory)?;
            }
        }
        Ok(())
    }
}

impl Picture {
    fn size(&self) -> (u32, u32) {
        let rows = self.panels.iter().map(|panel| panel.bars.len()).max().unwrap_or_default();
        let height = size::HEAD + rows as i32 * size::ROW + size::FOOT;
        ((self.panels.len() as i32 * size::PANEL) as u32, height as u32)
    }

    fn write(&self, directory: &Path) -> Result<()> {
        let (width, height) = self.size();
        let file = directory.join(format!("{}.svg", self.name));
        let area = SVGBackend::new(&file, (width, height)).into_drawing_area();
        self.draw(&area, 1).with_context(|| file.display().to_string())?;

        let (width, height) = (width * 2, height * 2);
        let mut pixels = vec![0; (width * height * 3) as usize];
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        self.draw(&area, 2)?;
        drop(area);
        let file = directory.join(format!("{}.png", self.name));
        let mut encoder = png::Encoder::new(fs::File::create(&file)?, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(())
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, scale: i32) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        area.fill(&CARD)?;
        for (at, panel) in self.panels.iter().enumerate() {
            let brush = Brush { area, left: at as i32 * size::PANEL, scale };
            panel.draw(&brush)?;
        }
        let brush = Brush { area, left: 0, scale };
        let (_, height) = self.size();
        brush.key(height as i32 - 14)?;
        area.present()?;
        Ok(())
    }
}

/// Draws at positions that are counted from a panel's left edge, at a scale.
struct Brush<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    left: i32,
    scale: i32,
}

impl<B: DrawingBackend> Brush<'_, B>
where
    B::ErrorType: 'static,
{
    fn at(&self, (x, y): (i32, i32)) -> (i32, i32) {
        ((self.left + x) * self.scale, y * self.scale)
    }

    fn text(
        &self,
        text: &str,
        at: (i32, i32),
        side: HPos,
        (size, style, colour): (i32, FontStyle, RGBColor),
    ) -> Result<()> {
        let font = ("sans-serif", size * self.scale, style).into_font().color(&colour);
        let style = font.pos(Pos::new(side, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), self.at(at), style))?;
        Ok(())
    }

    fn bar(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<()> {
        self.area.draw(&Rectangle::new([self.at(from), self.at(to)], colour.filled()))?;
        Ok(())
    }

    fn line(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<()> {
        let style = colour.stroke_width(self.scale as u32);
        self.area.draw(&PathElement::new(vec![self.at(from), self.at(to)], style))?;
        Ok(())
    }

    fn key(&self, y: i32) -> Result<()> {
        let mut x = size::LABELS;
        for (text, colour) in KEY {
            self.bar((x, y - 5), (x + 10, y + 5), *colour)?;
            self.text(text, (x + 15, y), HPos::Left, (11, FontStyle::Normal, PALE))?;
            x += 40 + 7 * text.len() as i32;
        }
        self.text(
            "bars: medians; lines: smallest to largest",
            (x, y),
            HPos::Left,
            (11, FontStyle::Normal, PALE),
        )
    }
}

impl Panel {
    fn draw<B: DrawingBackend>(&self, brush: &Brush<'_, B>) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let most = self.bars.iter().map(|bar| bar.spread.most).fold(0.0, f64::max);
        ensure!(most > 0.0, "{}: nothing to draw", self.title);
        let step = step(most);
        let width = size::PANEL - size::LABELS - size::VALUES;
        let x = |value: f64| size::LABELS + (value / most * f64::from(width)) as i32;
        let bottom = size::HEAD + self.bars.len() as i32 * size::ROW;
        brush.text(&self.title, (12, 18), HPos::Left, (15, FontStyle::Bold, INK))?;
        brush.text(self.axis, (12, 38), HPos::Left, (12, FontStyle::Normal, PALE))?;
        for tick in 0..=(most / step) as i32 {
            let value = f64::from(tick) * step;
            brush.line((x(value), size::HEAD - 4), (x(value), bottom), GRID)?;
            let decimals = usize::from(step < 1.0);
            let text = format!("{value:.decimals$}");
            brush.text(
                &text,
                (x(value), bottom + 10),
                HPos::Center,
                (11, FontStyle::Normal, PALE),
            )?;
        }
        for (at, bar) in self.bars.iter().enumerate() {
            let y = size::HEAD + at as i32 * size::ROW + size::ROW / 2;
            let Spread { median, least, most, count } = bar.spread;
            let weight = if bar.colour == OWN { FontStyle::Bold } else { FontStyle::Normal };
            brush.text(&bar.name, (size::LABELS - 8, y), HPos::Right, (12, weight, INK))?;
            brush.bar((x(0.0), y - 8), (x(median).max(x(0.0) + 1), y + 8), bar.colour)?;
            let mut reached = 0.0;
            for share in bar.shares.iter().take(bar.shares.len().saturating_sub(1)) {
                reached += share;
                let gap = x(median * reached);
                brush.bar((gap - 1, y - 8), (gap + 1, y + 8), CARD)?;
            }
            if count > 1 {
                brush.line((x(least), y), (x(most), y), INK)?;
                for end in [least, most] {
                    brush.line((x(end), y - 3), (x(end), y + 3), INK)?;
                }
            }
            let text = format!("{median:.*}", self.decimals);
            let end = x(most).max(x(median)) + 6;
            brush.text(&text, (end, y), HPos::Left, (12, weight, INK))?;
        }
        Ok(())
    }
}

/// A round distance of grid lines, of which there are at most six.
fn step(most: f64) -> f64 {
    let power = 10f64.powf((most / 5.0).log10().floor());
    let fits = |factor: &f64| most / (power * factor) <= 6.0;
    power * [1.0, 2.0, 5.0, 10.0].into_iter().find(fits).unwrap_or(10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::row;

    #[test]
    fn grid_lines_are_round_and_few() {
        for (most, expected) in [(5.0, 1.0), (9.0, 2.0), (26_000.0, 5_000.0), (0.7, 0.2)] {
            assert!((step(most) - expected).abs() < expected / 1e6, "{most}: {}", step(most));
        }
    }

    #[test]
    fn pictures_hold_what_was_measured() {
        let rows = vec![row(Kind::Plain, 0, Some(9.0)), row(Kind::Direct, 0, Some(5.0))];
        let pictures = Report { rows, ..Report::default() }.pictures();
        let bars = &pictures[0].panels[0].bars;
        assert_eq!(
            bars.iter().map(|bar| bar.name.as_str()).collect::<Vec<_>>(),
            ["plain forwarding", "rongate"]
        );
        assert_eq!(pictures[0].size().1 as i32, size::HEAD + 2 * size::ROW + size::FOOT);
        assert!(pictures[1].panels[0].bars.is_empty());
    }
}
