//! Where nothing is broken: everybody writes to everybody else.

use crate::net::{Net, Shape, small};
use crate::rig::Ip;

fn everybody_reaches_everybody(scenario: &'static str, number: u8, ip: Ip, shape: Shape) {
    let Some(net) = Net::up(scenario, number, ip, shape) else { return };
    net.everybody_writes(small(5));
    net.assert_all_arrived();
}

#[test]
fn a_line_over_ipv4() {
    everybody_reaches_everybody("line4", 1, Ip::V4, Shape::Line);
}

#[test]
fn a_line_over_ipv6() {
    everybody_reaches_everybody("line6", 2, Ip::V6, Shape::Line);
}

#[test]
fn a_mesh_over_ipv4() {
    everybody_reaches_everybody("mesh4", 3, Ip::V4, Shape::Mesh);
}

#[test]
fn a_mesh_over_ipv6() {
    everybody_reaches_everybody("mesh6", 4, Ip::V6, Shape::Mesh);
}
