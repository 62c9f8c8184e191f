// PyTorch's package lacks gloo's headers but has gloo in libtorch_cpu: these files declare as much as
// torch/csrc/distributed/c10d/ProcessGroupGloo.hpp needs, which only points at gloo's objects.
#pragma once
