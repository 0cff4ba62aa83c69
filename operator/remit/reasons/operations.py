"""The codes of operations: files, processes, HTTP, databases and containers. Pure."""

from __future__ import annotations

from typing import Final

from remit.reasons.code import NO, YES, Category, Code

_BUT_NOT: Final = "yes, but not what may have taken effect"
_REFUSED: Final = "Name the path that it leads to, where a policy allows that one."


def _file(name: str, meaning: str, remedy: str, retried: str = NO) -> Code:
    return Code(name, Category.OPERATION, meaning, retried, remedy)


def _refused(name: str, meaning: str, remedy: str = _REFUSED) -> Code:
    return Code(name, Category.DENIED, meaning, NO, remedy)


def _out(name: str, meaning: str, remedy: str, retried: str = YES) -> Code:
    return Code(name, Category.INFRASTRUCTURE, meaning, retried, remedy)


CODES: Final = (
    _file("NotFound", "The file, process, container, request or object does not exist.",
        "Correct its name, or create it first.", "yes for a file; no otherwise"),
    _file("AlreadyExists", "Something of that name exists already.", "Remove it, or choose another name.",
        "yes for a file; no otherwise"),
    _file("NotEmpty", "The folder is not empty.", "Set `recursive`, or name another one.", YES),
    _file("IsADirectory", "It is a folder where a file is needed.", "Name a file, or set `recursive`."),
    _file("NotADirectory", "A part of the path is not a folder.", "Correct the path."),
    _file("PermissionDenied", "The kernel does not give the operator's user access.",
        "Give that user access, or run the operator as another one."),
    _file("ReadOnly", "The file system, the transaction or the replica accepts no changes.",
        "Use one that accepts changes: another path, no `readOnly`, or the primary server."),
    _file("DiskFull", "The disk or its quota is full; nothing was changed.", "Free some space.", YES),
    _file("InvalidPath", "A name in the path is too long.", "Shorten it."),
    _file("FileError", "The kernel refused for a reason that has no word of its own here.",
        "Do what the kernel's message says.", "yes for errors of input and output"),
    _file("PartlyDeleted", "Something below the folder, or that the glob matches, was skipped and still exists.",
        "The output lists what was deleted; remove the rest by its own path."),
    _file("PartlyAppended", "A part was appended and could not be removed, because somebody else appended too.",
        "Look at the end of the file before you append again."),
    _refused("SymbolicLink", "The path is a symbolic link, which is never followed."),
    _refused("OutsideRoot", "A symbolic link leads out of the folder that policy allows."),
    _refused("HardLink", "The file has several names, so what policy allows by one name would change another.",
        "Copy the file, so that it has one name only, or name another one."),
    _refused("NotAFile", "It is a socket, a device or the like.", "Name a regular file or a folder."),
    _refused("SetUserId", "The file is set-user-ID or set-group-ID, or would become so.", "Remove these bits first."),
    _refused("OwnerNotAllowed", "It belongs to somebody whose files the policy does not allow.",
             "Add that owner to `files.owners` of the policy."),
    _refused("Protected",
        "The path is closed to file operations whatever policies say, such as the operator's own state.",
             "Use another path."),
    _refused("Root", "The operation would change the folder that the rule is about, or the root.",
        "Name what is below it."),
    _refused("IntoItself", "The folder would be copied or moved into itself.", "Name a destination outside of it."),
    _refused("TooDeep", "The folder is nested deeper than Remit follows.", "Name a folder further down."),
    _file("NotRunning", "The process or container does not run.", "Start it first."),
    Code("Exited", Category.EXIT_CODE, "How a started process ended: by itself; its status has the exit code.",
        "as `restartPolicy` says", "See its output."),
    Code("Signaled", Category.EXIT_CODE, "How a started process ended: by a signal, which its status names.",
        "as `restartPolicy` says", "See its output."),
    _out("SupervisorFailed", "The supervisor of the process ended or does not answer.",
        "Read the end of its log in the message, which says why."),
    _out("ConnectFailed", "The server cannot be reached, or refuses the login.",
        "Check the address, the server, the network between, and the login in the Secret."),
    _out("ResolveFailed", "The server's name cannot be looked up.", "Correct the name, or the operator's DNS."),
    _out("ConnectionLost", "The connection broke before the answer was complete.",
        "See the server's log; look whether it took place before you repeat it.", _BUT_NOT),
    _out("CircuitOpen", "Five failures in a row: the server gets no requests for 30 seconds.",
        "Repair the server; after 30 seconds one request is let through to test it.", "after 30 seconds"),
    _out("TlsFailed", "The server's certificate is not trusted.",
        "Name its authority by `caFrom`, or correct the host.", NO),
    _file("UnexpectedStatus", "The HTTP status is not one that `expectedStatus` lists.",
        "See the body in the output; correct the request, or `expectedStatus`.", "yes for 408, 425, 429 and 5xx"),
    _file("UnexpectedBody", "The body does not have what `expectedBody` says.", "See the body in the output.", YES),
    _file("ResponseTooLarge", "The answer is larger than `maxResponseBytes`.",
        "Raise it, or download the answer with `file.contentFrom.url`."),
    _file("TooManyRedirects", "The redirects do not end.", "Name the URL that they lead to."),
    _file("InsecureRedirect", "A redirect leads from https to http.", "Name the https URL of what is wanted."),
    _file("BadRedirect", "A redirect leads to a URL that cannot be followed.", "Name the URL that is meant."),
    Code("InvalidConnection", Category.INVALID, "The Secret does not hold an acceptable URL of a server.", NO,
        "Correct the Secret; the message says what of it is wrong."),
    _file("NotReady", "Redis cannot perform the commands now; nothing was done.",
        "Wait, or repair the server; the message has the server's own word.", YES),
    _file("UnreadableReply", "A reply of Redis is nested too deeply, or violates the protocol.",
        "Ask for something that is less nested."),
    _file("StatementFailed", "PostgreSQL refused a statement; the message has its SQLSTATE.",
        "Correct the statement or its parameters.", "yes for deadlocks, serialisation failures and the like"),
    Code("StatementTimeout", Category.TIMEOUT, "The server ended the statement because of its time.", YES,
        "Raise the timeout of the role or the task, or make the statement faster."),
    _refused("ReadDifferently", "A statement changed how the session reads the next one.",
             "Run it in a task of its own."),
    _file("CommandFailed", "Redis refused a command.", "Correct the command; the message has the server's words."),
    _file("NotPermitted", "The connection's user may not perform the command.",
        "Allow the command in the server's ACL."),
    _file("RowTooLarge", "A row is larger than Remit holds in memory.", "Select less of it."),
    _file("ReplyTooLarge", "The replies are larger than Remit holds in memory.", "Ask for less at once."),
    _file("ImageNotFound", "There is no such image.", "Pull it first, or correct its name."),
    _file("Conflict", "The engine or the API server has another state than the request needs, or somebody changed it.",
        "Look at its present state, and try again."),
    _file("EngineRefused", "The Docker engine refuses the request.", "Correct what its message names."),
    _file("EngineBusy", "The container is being made or removed at this moment.", "Wait.", YES),
    _out("EngineFailed", "The Docker engine failed.", "See the engine's log."),
    _out("EngineTimeout", "The Docker engine did not answer in time.", "See whether the engine's host is overloaded."),
    _out("EngineUnavailable", "The Docker engine cannot be reached.", "Start it, or correct `--docker-host`."),
    _out("PullFailed", "The image cannot be pulled.", "See whether the registry answers, and the pull secret."),
    _file("OperationFailed", "The operation did not succeed.", "Do what the message says.", YES),
)  # fmt: skip
