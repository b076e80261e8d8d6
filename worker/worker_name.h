// Names of workers, and whether one of this machine is surely dead.
#pragma once

#include <string>

namespace tempera {

// "<host>:<pid>:<pid namespace>.<start>": no two processes share it, a restart included.
std::string ThisWorkerName();

// True only if `name` is such a name of this host and pid namespace, and its process has gone: then its
// leases need not run out.
bool IsDeadWorker(const std::string& name);

}  // namespace tempera
