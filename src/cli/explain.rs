//! `rongate explain`.

use clap::Args;

use super::{Gateway, Outcome, control_client, paths};
use crate::gateway::status::{Explanation, Request};

/// Say where packets go and why: for a destination, or for one flow
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate explain 10.2.0.5
  rongate explain tcp 10.1.0.5:40000 203.0.113.80:80")]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// A destination address, or a flow as PROTOCOL SOURCE DESTINATION
    #[arg(required = true, num_args = 1..=3, value_name = "FLOW|ADDRESS")]
    subject: Vec<String>,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let request = Request::Explain { subject: arguments.subject.join(" ") };
    control_client::show(&arguments.gateway, &request, arguments.json, render)
}

fn render(explanation: &Explanation) -> String {
    let mut text = format!("{}\n", explanation.subject);
    let steps = &explanation.steps;
    let width = steps.iter().map(|step| step.question.chars().count()).max().unwrap_or(0);
    for step in steps {
        text += &format!("  {:width$}  {}\n", step.question, step.answer);
    }
    let metric = explanation.routing.as_ref().map_or("latency", |routing| routing.metric.as_str());
    if !explanation.candidates.is_empty() {
        text += &format!("\n{}", paths::candidates(metric, &explanation.candidates));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::status::ExplanationStep;

    #[test]
    fn the_steps_are_listed_in_order() {
        let step = |question: &str, answer: &str| ExplanationStep {
            question: question.into(),
            answer: answer.into(),
        };
        let explanation = Explanation {
            subject: "10.2.0.5".into(),
            steps: vec![step("destination", "in 10.2.0.0/16 of utah"), step("path", "direct")],
            ..Default::default()
        };
        let expected = "10.2.0.5\n  destination  in 10.2.0.0/16 of utah\n  path         direct\n";
        assert_eq!(render(&explanation), expected);
    }
}
