"""Commands that try to pass for one that the starter policy allows. Asked of the real policy engine."""

from __future__ import annotations

from .case import Command

CASES = [
    Command(
        name="shell metacharacters",
        wants="to have a second command run after an allowed one",
        control="whole-command patterns over the quoted line; no shell",
        attacks=tuple(
            ("cat", f"a.txt{attack}")
            for attack in (
                ";id",
                "|id",
                "&&id",
                "&id",
                ">x",
                "<x",
                "`id`",
                "$(id)",
                "${IFS}id",
                "*",
                "?",
                "{a,b}",
                "!x",
                "\\",
            )
        ),
        honest=("cat", "a.txt"),
    ),
    Command(
        name="quotes in arguments",
        wants="to end the quoting of the line that patterns see",
        control="shlex.join, of which no pattern matches a quote",
        attacks=(("cat", "a' 'b"), ("cat", 'a" "b'), ("cat", "a'\"'\"'b"), ("ls", "''"), ("cat", "")),
        honest=("cat", "a", "b"),
    ),
    Command(
        name="two arguments in one",
        wants="to have one argument seen as two, or two as one",
        control="the canonical line, which no two argument lists share",
        attacks=(("cat", "a b"), ("cat a", "b"), ("ls -l",), ("python3 app.py",), ("cat", "-n a")),
        honest=("cat", "-n", "a"),
    ),
    Command(
        name="newlines in arguments",
        wants="to have a pattern match the first line and a program read the second",
        control="control characters are refused before any pattern",
        attacks=(
            *(("cat", f"a{end}rm -rf /") for end in ("\n", "\r", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029")),
            ("ls", "a\n"),
            ("ls\n",),
        ),
        honest=("cat", "a"),
        reason="InvalidCommand",
    ),
    Command(
        name="NUL in arguments",
        wants="to have a pattern match what the kernel cuts off",
        control="control characters are refused before any pattern",
        attacks=(("cat", "a.txt\0.secret"), ("cat\0", "a"), ("ls", "\0"), ("python3", "evil\0.py")),
        honest=("cat", "a.txt"),
        reason="InvalidCommand",
    ),
    Command(
        name="terminal escapes in arguments",
        wants="to draw something else over the command in a log or a terminal",
        control="control characters are refused before any pattern",
        attacks=(
            ("echo", "\x1b[2J"),
            ("echo", "\x1b]0;title\x07"),
            ("echo", "a\bb"),
            ("echo", "\x9b31m"),
            ("echo", "\x7f"),
        ),
        honest=("echo", "[2J"),
        reason="InvalidCommand",
    ),
    Command(
        name="invisible and reordering characters",
        wants="to be read by people as another command",
        control="format characters and unusual spaces are refused before any pattern",
        attacks=tuple(
            ("echo", f"a{character}b")
            for character in ("\u200b", "\u200d", "\u202e", "\u2066", "\ufeff", "\u00ad", "\u00a0", "\u3000", "\u180e")
        ),
        honest=("echo", "a b"),
        reason="InvalidCommand",
    ),
    Command(
        name="bytes that are no text",
        wants="to pass a name that is shown as one thing and is another",
        control="lone surrogates are refused before any pattern",
        attacks=(("cat", "a\udcff"), ("cat", "\ud800"), ("\udc80ls",)),
        honest=("cat", "a"),
        reason="InvalidCommand",
    ),
    Command(
        name="look-alike letters",
        wants="to have a program or path of another script taken for an allowed one",
        control="patterns name their characters; programs are compared exactly",
        attacks=(
            ("сat", "a"),
            ("cаt", "a"),
            ("ｌｓ",),
            ("cat", "раth"),
            ("cat", "a／b"),
            ("cat", "a∕b"),
            ("ls", "．．"),
            ("ls", "−la"),
            ("ls", "–l"),
            ("e\u0301cho",),
            ("ℓs",),
        ),
        honest=("cat", "path"),
    ),
    Command(
        name="out of the workspace",
        wants="to read a file that is not in the workspace",
        control="patterns of relative paths whose parts do not begin with a dot",
        attacks=tuple(
            (program, path)
            for program in ("ls", "cat")
            for path in (
                "..",
                "../x",
                "a/../../etc/passwd",
                "/etc/passwd",
                "./../x",
                "a/./..",
                "~/x",
                "a//../b",
                ".env",
                "a/.git/config",
                "file:///etc/passwd",
            )
        ),
        honest=("cat", "a/b/c"),
    ),
    Command(
        name="options for arguments",
        wants="to have a file name taken for an option that does more",
        control="patterns in which only named options begin with a dash",
        attacks=(
            ("ls", "--hyperlink"),
            ("cat", "--help"),
            ("cat", "-"),
            ("python3", "-c", "print(1)"),
            ("python3", "-m", "http.server"),
            ("python3", "-"),
            ("python3", "-i", "a.py"),
            ("npm", "--prefix=/x", "install"),
            ("npm", "install", "evil"),
            ("npm", "run", "evil"),
            ("docker", "-H", "tcp://evil", "ps"),
            ("docker", "logs", "-f", "web"),
            ("docker", "ps", "--format={{.}}"),
            ("docker", "--config", "/x", "ps"),
            ("docker", "stats", "web"),
        ),
        honest=("docker", "logs", "--tail=5", "web"),
    ),
    Command(
        name="another program of the same name",
        wants="to have a program of its own run under an allowed name",
        control="a bare name stands for itself only; paths that take a detour are refused",
        attacks=(("./ls",), ("/workspace/ls",), ("bin/ls",), ("/tmp/cat", "a"), ("/bin/ls",)),
        honest=("ls",),
    ),
    Command(
        name="a program by a detour",
        wants="to reach another program by a path that looks like an allowed one",
        control="paths with '..', '//' or a final '/' are refused before any rule",
        attacks=(("/usr/bin/../../tmp/ls",), ("//usr/bin/ls",), ("../ls",), ("/usr/bin/ls/",), ("a/../ls",)),
        honest=("ls",),
        reason="InvalidCommand",
    ),
    Command(
        name="a program that runs programs",
        wants="to have an allowed kind of program start any other",
        control="only what is listed is allowed",
        attacks=(
            ("sh", "-c", "ls"),
            ("env", "ls"),
            ("xargs", "ls"),
            ("sudo", "ls"),
            ("nice", "ls"),
            ("busybox", "ls"),
            ("timeout", "1", "ls"),
            ("find", ".", "-exec", "ls", ";"),
            ("ld.so", "ls"),
            ("setsid", "ls"),
            ("exec", "ls"),
        ),
        honest=("ls",),
    ),
]
