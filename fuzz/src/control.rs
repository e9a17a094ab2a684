//! Requests at the control socket and at the status page.

pub fn run(data: &[u8]) {
    let Some((first, mut input)) = data.split_first() else { return };
    // As a connection does: answer by answer, until nothing complete is left.
    while let Some((used, answer)) = rongate::gateway::answer_in_vain(input, first & 1 == 1) {
        assert!(0 < used && used <= input.len(), "{used} of {}", input.len());
        assert!(!answer.is_empty());
        input = &input[used..];
    }
}
