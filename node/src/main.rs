fn main() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "shim") {
        rialto_node::executor::shim_main(args)
    }
}
