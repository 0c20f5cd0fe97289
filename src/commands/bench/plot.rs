//! The report as a picture: latency by percentile for each lane, and the share of each stage. One SVG that needs nothing
//! else.

use std::fmt::Write;

use undertone_inference::bench::Latencies;

use super::report::{Bulk, Report};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 650.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 390.0;
const BAR: f64 = 470.0;

/// Told apart by people who do not see all colours, too (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// (share of the texts, its label), evenly spaced where each step leaves a tenth: the tail is what matters.
const TICKS: [(f64, &str); 5] = [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9")];

/// The picture.
pub(super) fn svg(report: &Report<'_>) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let title = format!("{} {}: latency by percentile", report.model.name, report.model.precision);
    text(&mut svg, LEFT, 28.0, "start", &format!("font-size=\"17\" {BOLD}"), &title);
    let machine = format!("{}, {} workers, {}", report.processor, report.workers, report.instruction_sets.join(" "));
    text(&mut svg, LEFT, 48.0, "start", "fill=\"#666\"", &machine);
    curves(&mut svg, &series(report));
    stages(&mut svg, report);
    svg.push_str("</svg>");
    svg
}

/// The picture in a page of its own.
pub(super) fn page(svg: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>undertone bench</title>\n\
         <body style=\"margin:2em;background:#fff\">\n{svg}\n</body></html>"
    )
}

const BOLD: &str = "font-weight=\"600\"";

fn series<'a>(report: &'a Report<'_>) -> Vec<(&'static str, &'a Latencies)> {
    let mut series = Vec::new();
    series.extend(report.single.as_ref().map(|run| ("one text at a time", &run.latencies)));
    series.extend(report.saturated.as_ref().map(|run| ("bulk alone", &run.latencies)));
    series.extend(report.interactive.as_ref().map(|run| ("interactive alone", &run.latencies)));
    if let Some(mixed) = &report.mixed {
        series.push(("interactive beside bulk", &mixed.interactive.latencies));
        series.push(match &mixed.bulk {
            Bulk::Closed(run) => ("bulk beside interactive", &run.latencies),
            Bulk::Open(run) => ("bulk beside interactive", &run.latencies),
        });
    }
    series.retain(|(_, latencies)| !latencies.is_empty());
    series
}

/// Where a share of the texts stands: a step for each further nine.
fn across(p: f64) -> f64 {
    let last = 3.0;
    LEFT + (RIGHT - LEFT) * (-(1.0 - p).log10()).clamp(0.0, last) / last
}

/// The decades that hold all latencies, as exponents of ten in milliseconds.
fn decades(series: &[(&str, &Latencies)]) -> (i32, i32) {
    let least = series.iter().map(|(_, l)| l.percentile_ms(0.0)).fold(f64::INFINITY, f64::min).max(1e-3);
    let most = series.iter().map(|(_, l)| l.percentile_ms(1.0)).fold(0.0, f64::max).max(1e-3);
    let (low, high) = (least.min(most).log10().floor() as i32, most.log10().ceil() as i32);
    (low, high.max(low + 1))
}

fn curves(svg: &mut String, series: &[(&str, &Latencies)]) {
    let (low, high) = decades(series);
    let height = |ms: f64| {
        let up = (ms.max(1e-3).log10() - f64::from(low)) / f64::from(high - low);
        BOTTOM - (BOTTOM - TOP) * up.clamp(0.0, 1.0)
    };
    for exponent in low..=high {
        let y = height(10f64.powi(exponent));
        line(svg, (LEFT, y), (RIGHT, y), "#ddd");
        text(svg, LEFT - 8.0, y + 4.0, "end", "", &format!("{}", 10f64.powi(exponent)));
        for step in (2..10).filter(|_| exponent < high) {
            let y = height(10f64.powi(exponent) * f64::from(step));
            line(svg, (LEFT, y), (RIGHT, y), "#f2f2f2");
        }
    }
    for (p, label) in TICKS {
        line(svg, (across(p), TOP), (across(p), BOTTOM), "#ddd");
        text(svg, across(p), BOTTOM + 18.0, "middle", "", label);
    }
    text(svg, (LEFT + RIGHT) / 2.0, BOTTOM + 38.0, "middle", "", "percentile of texts, %");
    let middle = (TOP + BOTTOM) / 2.0;
    text(svg, 20.0, middle, "middle", &format!("transform=\"rotate(-90 20 {middle})\""), "latency, ms");
    for (i, ((name, latencies), colour)) in series.iter().zip(COLOURS).enumerate() {
        let points = (0..=300).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 100.0));
        // Beyond the last text that was measured there is nothing to draw.
        let known = points.filter(|p| *p <= 1.0 - 1.0 / latencies.len() as f64);
        let points: Vec<_> =
            known.map(|p| format!("{:.1},{:.1}", across(p), height(latencies.percentile_ms(p)))).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" ")
        );
        let y = TOP + 10.0 + 40.0 * i as f64;
        swatch(svg, (RIGHT + 16.0, y - 9.0), 12.0, colour);
        text(svg, RIGHT + 34.0, y + 2.0, "start", "", name);
        let p99 = format!("p99 {:.1} ms", latencies.percentile_ms(0.99));
        text(svg, RIGHT + 34.0, y + 18.0, "start", "fill=\"#666\"", &p99);
    }
}

fn stages(svg: &mut String, report: &Report<'_>) {
    let work: Vec<_> = report.stages.iter().filter_map(|stage| Some((stage, stage.share?))).collect();
    if work.is_empty() {
        return;
    }
    text(svg, LEFT, BAR - 10.0, "start", BOLD, "where the workers' time goes, bulk alone, % of work");
    let (mut from, mut label) = (LEFT, LEFT);
    for ((stage, share), colour) in work.into_iter().zip(COLOURS) {
        let width = (RIGHT - LEFT) * share;
        let _ =
            writeln!(svg, "<rect x=\"{from:.1}\" y=\"{BAR}\" width=\"{width:.1}\" height=\"26\" fill=\"{colour}\"/>");
        from += width;
        swatch(svg, (label, BAR + 42.0), 12.0, colour);
        let name = format!("{} {:.1} %", stage.stage, 100.0 * share);
        text(svg, label + 18.0, BAR + 53.0, "start", "", &name);
        text(svg, label + 18.0, BAR + 70.0, "start", "fill=\"#666\"", &format!("{:.3} ms a text", stage.ms_per_text));
        label += 145.0;
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(svg, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{colour}\"/>");
}

fn swatch(svg: &mut String, (x, y): (f64, f64), size: f64, colour: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{size}\" height=\"{size}\" rx=\"2\" fill=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {attributes}>{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{full, model};
    use super::*;

    #[test]
    fn each_phase_has_a_curve_inside_the_axes_and_names_are_escaped() {
        let model = model();
        let svg = svg(&full(&model));
        assert_eq!(svg.matches("<polyline").count(), 5);
        assert!(svg.contains("test &amp; &lt;model&gt;"));
        for line in svg.lines().filter_map(|line| line.split_once("points=\"")) {
            for point in line.1.trim_end_matches("\"/>").split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y), "{point}");
            }
        }
        assert!(page(&svg).starts_with("<!doctype html>"));
    }

    #[test]
    fn a_report_without_phases_is_still_a_picture() {
        let model = model();
        let mut report = full(&model);
        (report.single, report.saturated, report.interactive, report.mixed) = (None, None, None, None);
        report.stages.clear();
        assert!(!svg(&report).contains("NaN") && !svg(&report).contains("inf"));
    }

    #[test]
    fn percentiles_are_spaced_by_nines() {
        let step = across(0.99) - across(0.9);
        assert!((across(0.9) - LEFT - step).abs() < 1e-6 && (across(0.999) - across(0.99) - step).abs() < 1e-6);
        assert_eq!((across(0.0), across(1.0)), (LEFT, RIGHT));
    }
}
