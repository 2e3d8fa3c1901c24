use crate::daemon::line;

#[test]
fn a_line_delivers() {
    let net = line("abc");
    net[0].ctl(&["send", &net[2].peer, "hello"]).exits(0);
    assert_eq!(net[2].inbox(), [(net[0].peer.clone(), "hello".to_owned())]);
    net[1].await_links(&[&net[0], &net[2]]);
}
