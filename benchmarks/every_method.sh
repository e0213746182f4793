# The contenders of the study: every option of ReToM, and its peers. For scripts: sourced, as the array every_method.
every_method=(tomesd tomesd:use_rand=false tome:size_weighted=false/true tome:size_weighted=true,kv_lean=0.6
    tome:size_weighted=true,kv_lean=0.6,unmerge=linear
    retom:allocation=similarity/coherence/uniform,window=auto/4x4,reach=0/1/2,merge=mean/representative
    retom:kv_lean=0/0.4/0.8/1 retom:rematch=true retom:rematch=true,reach=2 retom:rematch=true,reach=2,kv_lean=0.4
    retom:unmerge=copy retom:unmerge=copy,reach=0/2 retom:unmerge=similarity retom:rematch=true,unmerge=similarity
    retom:unmerge=copy,reach=0,merge=representative
    retom:size_weighted=false retom:kv_lean=0,size_weighted=false retom:share=level
    retom:reach=0,share=level,size_weighted=false,unmerge=copy
    retom:allocation=multiscale,reach=0 retom:merge=norm_mean retom:score=block/keys
    random_representative window_corner {random_representative,window_corner}:unmerge=copy
    {random_representative,window_corner}:unmerge=copy,reach=0,merge=representative
    sito:size_weighted=false/true sdtm:size_weighted=false/true toma:size_weighted=false/true
    average_pool:window=1x2 importance)
