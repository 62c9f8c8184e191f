// Declared for ProcessGroupGloo.hpp; see ../algorithm.h.
#pragma once
