from . import (
    alignment as alignment,
)
from . import (
    attribution as attribution,
)
from . import (
    collapse as collapse,
)
from . import (
    comparison as comparison,
)
from . import (
    correspondence as correspondence,
)
from . import (
    criteria as criteria,
)
from . import (
    disruption as disruption,
)
from . import (
    dose as dose,
)
from . import (
    energy as energy,
)
from . import (
    factorial as factorial,
)
from . import (
    glance as glance,
)
from . import (
    intervals as intervals,
)
from . import (
    lens as lens,
)
from . import (
    massive as massive,
)
from . import (
    paired as paired,
)
from . import (
    pairs as pairs,
)
from . import (
    patching as patching,
)
from . import (
    published as published,
)
from . import (
    residual as residual,
)
from . import (
    segmentation as segmentation,
)
from . import (
    sources as sources,
)
from . import (
    stability as stability,
)
from . import (
    study as study,
)
from . import (
    sweep as sweep,
)
from . import (
    table as table,
)
from . import (
    tokens as tokens,
)
from . import (
    transport as transport,
)
from . import (
    trend as trend,
)
from . import (
    variance as variance,
)
