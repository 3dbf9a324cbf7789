//! One binary, three roles: builder, init, agent.

fn main() {}
